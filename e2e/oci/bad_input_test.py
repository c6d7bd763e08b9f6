"""Broken bundles and greedy guests: a clear error that names the step, and nothing left behind."""

import json
import os
import shutil
import unittest

import harness
import oci

only_moat = unittest.skipIf(oci.IS_RUNC, "runc words its errors in its own way")


class Bundle(oci.OciCase):
    def edit(self, container, change):
        """Rewrites a bundle's config.json by `change(config)`; a str that it returns is written as it is."""
        path = os.path.join(self.path_of(container), "config.json")
        with open(path, encoding="utf-8") as source:
            config = json.load(source)
        text = change(config)
        with open(path, "w", encoding="utf-8") as out:
            out.write(text if isinstance(text, str) else json.dumps(config))

    def refused(self, change, *words):
        container = self.bundle(["/bin/true"])
        self.edit(container, change)
        done = self.run_container(container)
        self.assert_refused(done, *(() if oci.IS_RUNC else words))
        self.assertNotEqual(done.stderr.strip(), "", "no error was printed")
        self.assertLess(len(done.stderr), 4096, "an error should be a line, not a flood")
        self.assertIsNone(self.runtime.state_of(container), "a container that could not be made is listed")

    def test_config_that_is_not_json(self):
        self.refused(lambda c: "{ this is not json", "config.json")

    def test_config_that_is_cut_short(self):
        self.refused(lambda c: json.dumps(c)[:200], "config.json")

    def test_config_that_is_empty(self):
        self.refused(lambda c: "", "config.json")

    def test_config_that_is_a_list(self):
        self.refused(lambda c: "[]", "config.json")

    @only_moat
    def test_config_of_wrong_types(self):
        self.refused(lambda c: c["process"].update(args="/bin/true"), "args")
        self.refused(lambda c: c.update(mounts={"destination": "/x"}), "mounts")
        self.refused(lambda c: c["root"].update(path=7), "root")
        self.refused(lambda c: c["process"]["user"].update(uid="root"), "uid")

    def test_no_process_arguments(self):
        self.refused(lambda c: c["process"].update(args=[]), "args")

    def test_config_that_is_not_there(self):
        container = self.bundle(["/bin/true"])
        os.unlink(os.path.join(self.path_of(container), "config.json"))
        self.assert_refused(self.run_container(container), "config.json")

    def test_bundle_that_is_not_there(self):
        self.assert_refused(self.runtime.call("run", "--bundle", "/no/such/bundle", self.new_id()), "/no/such/bundle")

    def test_root_that_is_not_there(self):
        self.refused(lambda c: c["root"].update(path="/no/such/root"), "/no/such/root")

    @only_moat
    def test_root_that_is_a_file(self):
        self.refused(lambda c: c["root"].update(path="/etc/hostname"), "/etc/hostname")

    def test_bind_source_that_is_not_there(self):
        self.refused(lambda c: c["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["rbind"]}),
                     "/no/such/source")

    @only_moat
    def test_mount_type_that_nobody_knows(self):
        self.refused(lambda c: c["mounts"].append({"destination": "/x", "type": "btrfs-of-the-moon", "source": "none"}), "btrfs-of-the-moon")

    def test_program_that_is_not_there(self):
        self.refused(lambda c: c["process"].update(args=["/bin/no-such-program"]), "no-such-program")

    def test_program_that_is_not_executable(self):
        self.refused(lambda c: c["process"].update(args=["/etc/passwd"]), "/etc/passwd")

    def test_capability_that_nobody_knows(self):
        # A newer kernel's capability is not one that this kernel could give: left out, and said so.
        container = self.bundle(["/bin/grep", "CapBnd", "/proc/self/status"])
        known = self.run_container(container)
        self.assertEqual(known.returncode, 0, known.stderr)
        self.edit(container, lambda c: c["process"]["capabilities"]["bounding"].append("CAP_MAKE_COFFEE"))
        done = self.run_container(container)
        self.assertEqual((done.returncode, done.stdout), (0, known.stdout), done.stderr)
        self.assertIn("CAP_MAKE_COFFEE", done.stderr)

    def test_limit_that_nobody_knows(self):
        self.refused(lambda c: c["process"]["rlimits"].append({"type": "RLIMIT_COFFEE", "soft": 1, "hard": 1}), "RLIMIT_COFFEE")

    def test_ids_that_would_leave_the_state_directory(self):
        container = self.bundle(["/bin/true"])
        for bad in ("../escape", "a/b", "", ".", "..", "x" * 2000):
            done = self.runtime.call("run", "--bundle", self.path_of(container), "--", bad)
            self.assertNotEqual(done.returncode, 0, f"the id {bad[:20]!r} was taken")
        self.assertFalse(os.path.exists(os.path.join(self.directory, "escape")))

    @only_moat
    def test_symlink_in_the_root_does_not_lead_a_mount_out(self):
        # The image says that /data is the host's directory; the mount must land inside the root.
        target = os.path.join(self.directory, "target")
        source = os.path.join(self.directory, "source")
        root = os.path.join(self.directory, "root")
        for path in (target, source, root):
            os.mkdir(path)
        with open(os.path.join(source, "seen"), "w", encoding="ascii") as out:
            out.write("seen\n")
        os.makedirs(os.path.join(root, "bin"))
        for name in ("sh", "cat"):
            shutil.copy2(os.path.join(harness.busybox_root(), "bin", name), os.path.join(root, "bin", name))
        for name in ("proc", "dev", "sys", "tmp"):
            os.mkdir(os.path.join(root, name))
        os.symlink(target, os.path.join(root, "data"))
        bind = {"destination": "/data", "type": "bind", "source": source, "options": ["rbind"]}
        done = self.run_shell("cat /data/seen", root=root, mounts=[bind])
        self.assertEqual(os.listdir(target), [])
        if done.returncode == 0:
            self.assertEqual(done.stdout, "seen\n")


class Greedy(oci.OciCase):
    def test_a_fork_bomb_stops_at_the_pids_limit(self):
        # Forks as long as it can; then counts, frees everything, and works on.
        script = ("i=0; while [ $i -lt 400 ]; do (sleep 1000 &) 2>/dev/null || break; i=$((i + 1)); done; "
                  "ls -d /proc/[0-9]* 2>/dev/null | wc -l; exit 0")
        counting = "set -- /proc/[0-9]*; echo $#"
        done = self.run_shell(f"( {script} ) >/dev/null 2>&1; {counting}", resources={"pids": {"limit": 32}}, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLessEqual(int(done.stdout.split()[-1]), 33)
        self.assertGreater(int(done.stdout.split()[-1]), 16)

    def test_a_fork_bomb_can_be_deleted(self):
        container = self.bundle(["/bin/sh", "-c", "f() { f | f & }; f; while :; do sleep 1; done"], resources={"pids": {"limit": 64}})
        self.assertEqual(self.create(container)[0], 0)
        self.assert_clean(self.runtime.call("start", container))
        self.assert_clean(self.runtime.call("kill", container, "KILL"))
        self.wait_for_state(container, "stopped", 30)
        self.assert_clean(self.runtime.call("delete", container))

    def test_memory_beyond_the_limit_ends_the_guest_alone(self):
        beside = self.bundle(["/bin/sleep", "1000"])
        self.create(beside)
        self.runtime.call("start", beside)
        done = self.run_shell("exec dd if=/dev/zero of=/dev/null bs=300M count=1", resources={"memory": {"limit": 64 << 20, "swap": 64 << 20}})
        self.assertIn(done.returncode, (137, 1), done.stderr)
        self.assertEqual(self.runtime.state_of(beside)["status"], "running")

    def test_a_guest_that_fills_its_root_gets_an_error(self):
        done = self.run_shell("dd if=/dev/zero of=/tmp/big bs=1M count=64 2>&1 | tail -1; echo still here",
                              mounts=[{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=4m"]}])
        self.assertIn("still here", done.stdout)
        self.assertIn("No space left", self.run_shell("dd if=/dev/zero of=/tmp/big bs=1M count=64",
                      mounts=[{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=4m"]}]).stderr)
