"""A guest that attacks its platform (e2e/syscalls/hostile): everybody else goes on, and nothing is left."""

import os
import shutil

import harness
import oci

PROGRAM = os.path.join(harness.BUILD, "e2e", "syscalls", "bin", "hostile")


class Hostile(oci.OciCase):
    def attack(self, *arguments, **more):
        """Runs attacks in a container; each says itself whether its neighbours can still work."""
        container = self.bundle(["/hostile", *arguments], root=self.root_with_attacker(), **more)
        done = self.run_container(container, timeout=180)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stdout.splitlines()[-1], "PASS")

    def root_with_attacker(self):
        root = os.path.join(self.directory, "attacker")
        shutil.copytree(harness.busybox_root(), root, symlinks=True)
        shutil.copy2(PROGRAM, os.path.join(root, "hostile"))
        return root

    def test_scribbling_over_the_stubs_memory(self):
        self.attack("scribble")

    def test_jumping_at_every_call_in_the_stub(self):
        self.attack("jump")

    def test_blocking_the_sentrys_signal(self):
        self.attack("sigblock")

    def test_unmapping_the_stub(self):
        self.attack("remap")

    def test_calls_of_other_abis(self):
        self.attack("abi")

    def test_forking_up_to_the_limit(self):
        self.attack("forks", "100", resources={"pids": {"limit": 50}})
