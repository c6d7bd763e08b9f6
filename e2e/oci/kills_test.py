"""A sentry, a gofer, or the command itself killed at any moment: a clear error, and nothing left behind."""

import os
import random
import signal
import subprocess
import unittest

import host
import oci


def new_processes(before, *names):
    return [pid for pid in host.by_comm(*names) if pid not in before]


@unittest.skipIf(oci.IS_RUNC, "runc has neither a sentry nor a gofer")
class Kills(oci.OciCase):
    def setUp(self):
        super().setUp()
        self.old = host.by_comm("moat-sentry", "moat-gofer")

    def running(self, arguments=("/bin/sleep", "1000"), **more):
        """A started container, its sentry's pids and its gofers'."""
        container = self.bundle(list(arguments), **more)
        status, error = self.create(container)
        self.assertEqual(status, 0, error)
        self.assert_clean(self.runtime.call("start", container))
        sentries, gofers = new_processes(self.old, "moat-sentry"), new_processes(self.old, "moat-gofer")
        self.assertTrue(sentries and gofers, f"sentries {sentries}, gofers {gofers}")
        return container, sentries, gofers

    def check_dead(self, container):
        """The container counts as stopped, verbs say why they cannot, and delete takes it away."""
        self.wait_for_state(container, "stopped")
        self.assert_refused(self.runtime.call("exec", container, "/bin/true"), container)
        self.assert_refused(self.runtime.call("kill", container, "KILL"), container)
        self.assert_clean(self.runtime.call("delete", "--force", container))
        self.assertIsNone(self.runtime.state_of(container))
        host.wait_for(lambda: not new_processes(self.old, "moat-sentry", "moat-gofer"), 10, "sentry and gofer are gone")

    def test_a_killed_sentry_takes_its_guests_along(self):
        container, sentries, _ = self.running(("/bin/sh", "-c", "sleep 1001 & sleep 1002 & wait"))
        guests = [pid for sentry in sentries for pid in host.descendants(sentry)]
        self.assertTrue(guests)
        for pid in sentries:
            host.kill_quietly(pid)
        host.wait_for(lambda: not any(host.alive(p) for p in guests), 10, "the guests' host processes are gone")
        self.check_dead(container)

    def test_a_killed_sentry_is_told_to_who_waits(self):
        container, sentries, _ = self.running()
        waiting = self.runtime.start("wait", container)
        executing = self.runtime.start("exec", container, "/bin/sh", "-c", "echo ready; sleep 1000")
        self.assertEqual(executing.stdout.readline(), "ready\n")
        for pid in sentries:
            host.kill_quietly(pid)
        _, error = executing.communicate(timeout=20)
        self.assertNotEqual(executing.returncode, 0)
        self.assertTrue(error.strip(), "exec ended without a word")
        waiting.communicate(timeout=20)
        self.check_dead(container)

    def test_a_killed_gofer_gives_errors_not_a_hang(self):
        container, _, gofers = self.running()
        for pid in gofers:
            host.kill_quietly(pid)
        # What has to be fetched from the image fails; the sentry itself lives and answers.
        done = self.runtime.call("exec", container, "/bin/cat", "/etc/passwd", timeout=30)
        self.assertNotEqual(done.returncode, 0)
        self.runtime.call("kill", container, "KILL")
        self.check_dead(container)

    def test_a_killed_sentry_spares_the_other_pods(self):
        one, sentries, _ = self.running()
        self.old = host.by_comm("moat-sentry", "moat-gofer")
        two, _, _ = self.running()
        for pid in sentries:
            host.kill_quietly(pid)
        self.wait_for_state(one, "stopped")
        self.assert_clean(self.runtime.call("exec", two, "/bin/echo", "lives"), "lives\n")
        self.assert_clean(self.runtime.call("delete", "--force", one))

    def test_a_killed_run_command_leaves_something_that_can_be_deleted(self):
        # At moments all over its life, some before the container exists.
        seed = random.randrange(1 << 30)
        print(f"      seed {seed}")
        moments = random.Random(seed)
        for _ in range(8):
            container = self.bundle(["/bin/sleep", "1000"])
            process = self.runtime.start("run", "--bundle", self.path_of(container), container,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(moments.uniform(0, 0.12))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait(10)
            self.assert_clean(self.runtime.call("delete", "--force", container))
            self.assertIsNone(self.runtime.state_of(container))
        host.wait_for(lambda: not new_processes(self.old, "moat-sentry", "moat-gofer"), 10,
                      lambda: f"nothing is left of the killed runs: {new_processes(self.old, 'moat-sentry', 'moat-gofer')}")

    def test_a_killed_foreground_takes_its_container_along(self):
        for verb in ("run", "do"):
            container = self.bundle(["/bin/sleep", "1000"])
            arguments = ("--bundle", self.path_of(container), container) if verb == "run" else ("--", "/bin/sleep", "1000")
            process = self.runtime.start(verb, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            host.wait_for(lambda: '"running"' in self.runtime.call("list", "--format", "json").stdout, 20, "it runs")
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            host.wait_for(lambda: self.runtime.call("list", "--quiet").stdout == "", 20,
                          lambda: f"nothing is left of a killed {verb}: {self.runtime.call('list').stdout}")

    def test_a_terminated_foreground_ends_its_container(self):
        # No handler in the guest: an init would ignore the signal if another process had sent it.
        for verb in ("run", "do"):
            container = self.bundle(["/bin/sleep", "1000"])
            arguments = ("--bundle", self.path_of(container), container) if verb == "run" else ("--", "/bin/sleep", "1000")
            process = self.runtime.start(verb, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            host.wait_for(lambda: '"running"' in self.runtime.call("list", "--format", "json").stdout, 20, "it runs")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(20), 128 + signal.SIGTERM)
            self.assertEqual(self.runtime.call("list", "--quiet").stdout, "")

    def test_a_sentry_killed_during_create_fails_create(self):
        seed = random.randrange(1 << 30)
        print(f"      seed {seed}")
        moments = random.Random(seed)
        failed = 0
        for _ in range(8):
            container = self.bundle(["/bin/sleep", "1000"])
            process = self.runtime.start("create", "--bundle", self.path_of(container), container, stdout=subprocess.DEVNULL)
            sentries = host.wait_for(lambda: new_processes(self.old, "moat-sentry") or process.poll() is not None, 10, "a sentry")
            try:
                process.wait(moments.uniform(0, 0.02))
            except subprocess.TimeoutExpired:
                pass
            for pid in sentries if isinstance(sentries, list) else []:
                host.kill_quietly(pid)
            process.stderr.close()
            failed += process.wait(30) != 0
            # Created or refused, delete must be able to end it.
            self.runtime.call("delete", "--force", container)
            self.assertIsNone(self.runtime.state_of(container))
        print(f"      {failed} of 8 creates failed")

    def test_a_deaf_guest_is_killed(self):
        container, _, _ = self.running(("/bin/sh", "-c", "trap '' TERM INT HUP USR1 USR2 QUIT; while :; do :; done"))
        self.assert_clean(self.runtime.call("kill", container, "TERM"))
        self.assert_clean(self.runtime.call("kill", container, "KILL"))
        self.wait_for_state(container, "stopped")
        self.assert_clean(self.runtime.call("delete", container))

    def test_stray_children_of_the_state_directory_are_harmless(self):
        # A directory and a file that moat did not make, and a container's state cut short.
        container, _, _ = self.running()
        os.mkdir(os.path.join(self.runtime.state, "stray"))
        with open(os.path.join(self.runtime.state, "junk"), "w", encoding="ascii") as out:
            out.write("junk")
        self.assert_clean(self.runtime.call("exec", container, "/bin/true"))
        self.assertIn(container, self.runtime.call("list").stdout)
