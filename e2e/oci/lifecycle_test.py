"""create, start, run, state, kill, delete, exec, ps, list, wait, pause, do: one container of busybox."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import unittest

import harness
import host
import oci

only_moat = unittest.skipIf(oci.IS_RUNC, "a verb or an answer that runc does not have")


class Run(oci.OciCase):
    def test_prints_what_the_guest_prints(self):
        self.assert_clean(self.run_shell("echo hello; echo world >&2"), "hello\n")

    def test_keeps_stdout_and_stderr_apart(self):
        done = self.run_shell("echo out; echo err >&2")
        self.assertEqual((done.stdout, done.stderr), ("out\n", "err\n"))

    def test_passes_the_exit_code_on(self):
        for code in (0, 1, 42, 255):
            self.assertEqual(self.run_shell(f"exit {code}").returncode, code)

    def test_tells_a_death_by_signal_as_shells_do(self):
        self.assertEqual(self.run_shell("sh -c 'kill -KILL $$'; exit $?").returncode, 128 + signal.SIGKILL)

    def test_reads_stdin_to_its_end(self):
        container = self.bundle(["/bin/sh", "-c", "wc -c; echo done"])
        self.assert_clean(self.run_container(container, stdin="x" * 300000), "300000\ndone\n")

    def test_sees_end_of_file_on_an_empty_stdin(self):
        self.assert_clean(self.run_container(self.bundle(["/bin/cat"]), stdin=""), "")

    def test_moves_bytes_unchanged(self):
        data = os.urandom(1 << 20)
        done = self.run_container(self.bundle(["/bin/cat"]), stdin=data, binary=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout == data, f"{len(done.stdout)} bytes came back, or other ones")

    def test_takes_arguments_environment_and_directory_from_config(self):
        container = self.bundle(["/bin/sh", "-c", 'echo "$0 $1 $PWD $FROM_SPEC"', "zero", "o n e"], env=["FROM_SPEC=yes"], cwd="/usr")
        self.assert_clean(self.run_container(container), "zero o n e /usr yes\n")

    def test_runs_as_the_user_of_the_config(self):
        done = self.run_shell("id -u; id -g; id -G; touch /etc/x || echo refused", uid=33, gid=33, additional_gids=[100])
        self.assertEqual(done.stdout, "33\n33\n33 100\nrefused\n", done.stderr)

    def test_has_the_hostname_of_the_config(self):
        self.assert_clean(self.run_shell("hostname; cat /proc/sys/kernel/hostname", hostname="webserver"), "webserver\nwebserver\n")

    def test_its_first_process_is_pid_1_of_a_namespace(self):
        done = self.run_shell("echo $$; ls -d /proc/[0-9]* | wc -l")
        self.assertEqual(done.stdout.split()[0], "1", done.stderr)
        self.assertLessEqual(int(done.stdout.split()[1]), 4)

    def test_has_the_capabilities_of_the_config(self):
        done = self.run_shell("grep Cap /proc/self/status")
        found = dict(re.findall(r"Cap(\w+):\s+([0-9a-f]+)", done.stdout))
        mask = sum(1 << {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_FSETID": 4, "CAP_KILL": 5, "CAP_SETGID": 6,
                         "CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_NET_BIND_SERVICE": 10, "CAP_NET_RAW": 13, "CAP_SYS_CHROOT": 18,
                         "CAP_MKNOD": 27, "CAP_AUDIT_WRITE": 29, "CAP_SETFCAP": 31}[c] for c in oci.DEFAULT_CAPABILITIES)
        self.assertEqual(int(found["Eff"], 16), mask, done.stdout)
        self.assertEqual(int(found["Bnd"], 16), mask, done.stdout)

    def test_has_the_limits_of_the_config(self):
        self.assert_clean(self.run_shell("ulimit -n; ulimit -Hn"), "1024\n4096\n")

    def test_has_the_mounts_of_the_config(self):
        done = self.run_shell("cut -d' ' -f2,3 /proc/mounts")
        for line in ("/proc proc", "/dev/pts devpts", "/dev/shm tmpfs", "/sys sysfs", "/tmp tmpfs"):
            self.assertIn(line + "\n", done.stdout, done.stderr)

    def test_device_nodes_work(self):
        self.assert_clean(self.run_shell("head -c 4 /dev/zero | od -An -tx1; echo x > /dev/null; head -c 8 /dev/urandom | wc -c; "
                                         "cat /dev/null; [ -c /dev/tty ] && echo tty; echo via > /dev/stdout"),
                          " 00 00 00 00\n8\ntty\nvia\n")

    def test_masked_and_read_only_paths_hold(self):
        self.assert_clean(self.run_shell("cat /proc/kcore | wc -c; echo x 2>/dev/null > /proc/sys/kernel/hostname || echo refused"),
                          "0\nrefused\n")

    def test_a_read_only_root_refuses_writes(self):
        done = self.run_shell("touch /etc/x; echo $?; touch /tmp/x; echo $?", readonly=True)
        self.assertEqual(done.stdout, "1\n0\n")
        self.assertIn("Read-only file system", done.stderr)

    def test_writes_to_the_root_stay_in_the_container(self):
        self.assert_clean(self.run_shell("echo changed > /etc/passwd; mkdir /new; rm /etc/group; cat /etc/passwd; ls -d /new"),
                          "changed\n/new\n")
        self.assertIn("root:x:0", host.read(os.path.join(harness.busybox_root(), "etc/passwd")))
        self.assertFalse(os.path.exists(os.path.join(harness.busybox_root(), "new")))
        self.assertTrue(os.path.exists(os.path.join(harness.busybox_root(), "etc/group")))

    def test_bind_mounts_go_both_ways(self):
        shared = os.path.join(self.directory, "shared")
        os.mkdir(shared)
        with open(os.path.join(shared, "in"), "w", encoding="ascii") as out:
            out.write("from the host\n")
        bind = {"destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "rw"]}
        self.assert_clean(self.run_shell("cat /shared/in; echo from the guest > /shared/out; mkdir /shared/d; ln -s in /shared/l",
                                         mounts=[bind]), "from the host\n")
        self.assertEqual(host.read(os.path.join(shared, "out")), "from the guest\n")
        self.assertTrue(os.path.isdir(os.path.join(shared, "d")))
        self.assertEqual(os.readlink(os.path.join(shared, "l")), "in")

    def test_a_read_only_bind_mount_refuses_writes(self):
        shared = os.path.join(self.directory, "shared")
        os.mkdir(shared)
        bind = {"destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "ro"]}
        done = self.run_shell("touch /shared/x; echo $?", mounts=[bind])
        self.assertEqual(done.stdout, "1\n")
        self.assertIn("Read-only file system", done.stderr)
        self.assertEqual(os.listdir(shared), [])

    def test_a_file_can_be_bind_mounted(self):
        source = os.path.join(self.directory, "resolv.conf")
        with open(source, "w", encoding="ascii") as out:
            out.write("nameserver 127.0.0.53\n")
        bind = {"destination": "/etc/resolv.conf", "type": "bind", "source": source, "options": ["bind", "ro"]}
        self.assert_clean(self.run_shell("cat /etc/resolv.conf; stat -c %F /etc/resolv.conf", mounts=[bind]),
                          "nameserver 127.0.0.53\nregular file\n")

    def test_without_a_network_there_is_only_loopback(self):
        done = self.run_shell("ls /sys/class/net; ping -c1 -W1 192.0.2.1 >/dev/null 2>&1; echo $?")
        self.assertIn("lo\n", done.stdout, done.stderr)
        self.assertNotIn("eth0", done.stdout)
        self.assertTrue(done.stdout.endswith("1\n"), done.stdout)

    def test_the_state_is_gone_after_run(self):
        container = self.bundle(["/bin/true"])
        self.assert_clean(self.run_container(container), "")
        self.assertIsNone(self.runtime.state_of(container))

    @only_moat
    def test_the_kernel_is_moats(self):
        done = self.run_shell("uname -r; cat /proc/version; dmesg")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotEqual(done.stdout.splitlines()[0], os.uname().release)
        self.assertIn("moat", done.stdout)
        self.assertNotIn(os.uname().version, done.stdout)


class Lifecycle(oci.OciCase):
    def test_create_start_kill_delete(self):
        container = self.bundle(["/bin/sleep", "1000"])
        pid_file = os.path.join(self.directory, "pid")
        done = self.runtime.start("create", "--bundle", self.path_of(container), "--pid-file", pid_file, container,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertEqual(done.wait(60), 0)
        state = self.runtime.state_of(container)
        self.assertEqual((state["status"], state["id"], state["bundle"]), ("created", container, self.path_of(container)))
        self.assertTrue(host.alive(int(host.read(pid_file))))
        self.assert_clean(self.runtime.call("start", container))
        self.assertEqual(self.wait_for_state(container, "running")["ociVersion"].split(".")[0], "1")
        self.assert_refused(self.runtime.call("delete", container))
        self.assert_clean(self.runtime.call("kill", container, "KILL"))
        self.wait_for_state(container, "stopped")
        self.assert_clean(self.runtime.call("delete", container))
        self.assertIsNone(self.runtime.state_of(container))

    def test_nothing_of_the_guest_runs_before_start(self):
        shared = os.path.join(self.directory, "shared")
        os.mkdir(shared)
        bind = {"destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "rw"]}
        container = self.bundle(["/bin/touch", "/shared/ran"], mounts=[bind])
        self.assertEqual(self.create(container)[0], 0)
        self.assertEqual(os.listdir(shared), [])
        self.assert_clean(self.runtime.call("start", container))
        self.wait_for_state(container, "stopped")
        self.assertEqual(os.listdir(shared), ["ran"])

    def test_an_id_is_taken_once(self):
        container = self.bundle(["/bin/sleep", "1000"])
        self.assertEqual(self.create(container)[0], 0)
        status, error = self.create(container)
        self.assertNotEqual(status, 0)
        self.assertIn("exist", error)
        self.assertEqual(self.runtime.state_of(container)["status"], "created")

    def test_start_twice_is_refused(self):
        container = self.bundle(["/bin/sleep", "1000"])
        self.create(container)
        self.assert_clean(self.runtime.call("start", container))
        self.assert_refused(self.runtime.call("start", container))
        self.assertEqual(self.runtime.state_of(container)["status"], "running")

    def test_a_created_container_can_be_deleted_by_force(self):
        container = self.bundle(["/bin/sleep", "1000"])
        self.create(container)
        self.assert_clean(self.runtime.call("delete", "--force", container))
        self.assertIsNone(self.runtime.state_of(container))

    def test_what_is_not_there_is_named(self):
        for verb, more in (("state", ()), ("start", ()), ("kill", ("KILL",)), ("delete", ()), ("ps", ()), ("exec", ("/bin/true",))):
            self.assert_refused(self.runtime.call(verb, "no-such-container", *more), "no-such-container" if not oci.IS_RUNC else "")

    def test_list_names_every_container(self):
        one, two = self.bundle(["/bin/sleep", "1000"]), self.bundle(["/bin/sleep", "1000"])
        self.create(one)
        self.create(two)
        self.assert_clean(self.runtime.call("start", two))
        rows = {r["id"]: r for r in json.loads(self.runtime.call("list", "--format", "json").stdout)}
        self.assertEqual({k: v["status"] for k, v in rows.items()}, {one: "created", two: "running"})
        self.assertEqual(rows[two]["bundle"], self.path_of(two))
        table = self.runtime.call("list").stdout
        self.assertRegex(table.splitlines()[0], r"^ID\s+PID\s+STATUS\s+BUNDLE")

    def test_kill_reaches_a_handler(self):
        out = os.path.join(self.directory, "out")
        container = self.bundle(["/bin/sh", "-c", "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 1 & wait; done"])
        with open(out, "wb") as log:
            self.assertEqual(self.create(container, stdout=log)[0], 0)
        self.runtime.call("start", container)
        host.wait_for(lambda: host.read(out) == "ready\n", 20, lambda: f"the guest is ready: {host.read(out)!r}")
        self.assert_clean(self.runtime.call("kill", container, "TERM"))
        self.wait_for_state(container, "stopped")
        self.assertEqual(host.read(out), "ready\ngot it\n")

    def test_pid_1_ignores_a_signal_that_it_has_no_handler_for(self):
        container = self.bundle(["/bin/sleep", "1000"])
        self.create(container)
        self.runtime.call("start", container)
        self.assert_clean(self.runtime.call("kill", container, "HUP"))
        self.assert_clean(self.runtime.call("exec", container, "/bin/true"))  # the signal has been dealt with by now
        self.assertEqual(self.runtime.state_of(container)["status"], "running")

    def test_kill_of_a_stopped_container_is_refused(self):
        container = self.bundle(["/bin/true"])
        self.create(container)
        self.runtime.call("start", container)
        self.wait_for_state(container, "stopped")
        self.assert_refused(self.runtime.call("kill", container, "KILL"))

    @only_moat
    def test_wait_tells_the_exit_code(self):
        container = self.bundle(["/bin/sh", "-c", "read line; exit 9"])
        inside, outside = os.pipe()
        self.create(container, stdin=inside)
        os.close(inside)
        self.runtime.call("start", container)
        waiting = self.runtime.start("wait", container)
        os.write(outside, b"go\n")
        os.close(outside)
        out, err = waiting.communicate(timeout=30)
        self.assertIn("9", out, err)
        self.assertIn("9", self.runtime.call("wait", container).stdout)  # a second time, after the fact

    @only_moat
    def test_the_process_of_the_pid_file_ends_with_the_containers_code(self):
        # What an engine waits for: it is a subreaper, so that the process becomes its child.
        container = self.bundle(["/bin/sh", "-c", "exit 23"])
        pid_file = os.path.join(self.directory, "pid")
        reaper = ("import ctypes, os, subprocess, sys\n"
                  "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER\n"
                  "subprocess.run(sys.argv[2:], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)\n"
                  "pid = int(open(sys.argv[1]).read())\n"
                  "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)\n")
        out = os.path.join(self.directory, "out")
        with open(out, "wb") as log:
            waiting = subprocess.Popen([sys.executable, "-c", reaper, pid_file,
                                        *self.runtime.command("create", "--bundle", self.path_of(container), "--pid-file", pid_file, container)],
                                       stdin=subprocess.DEVNULL, stdout=log)
        self.wait_for_state(container, "created")
        self.assert_clean(self.runtime.call("start", container))
        self.assertEqual(waiting.wait(30), 0)
        self.assertEqual(host.read(out), "23\n")
        self.assertEqual(self.runtime.state_of(container)["status"], "stopped")
        self.assertIn("23", self.runtime.call("wait", container).stdout)
        self.assert_clean(self.runtime.call("delete", container))

    def test_ps_lists_the_guests_processes(self):
        container = self.bundle(["/bin/sh", "-c", "sleep 1001 & sleep 1002"])
        self.create(container)
        self.runtime.call("start", container)
        table = host.wait_for(lambda: (lambda t: t if t.count("sleep") >= 2 else "")(self.runtime.call("ps", container).stdout),
                              20, lambda: self.runtime.call("ps", container).stdout)
        self.assertIn("PID", table.splitlines()[0])

    def test_pause_stops_it_and_resume_lets_it_go_on(self):
        out = os.path.join(self.directory, "out")
        container = self.bundle(["/bin/sh", "-c", "while :; do echo tick; usleep 10000; done"])
        with open(out, "wb") as log:
            self.create(container, stdout=log)
        self.runtime.call("start", container)
        host.wait_for(lambda: os.path.getsize(out) > 0, 20, "the guest ticks")
        self.assert_clean(self.runtime.call("pause", container))
        self.assertEqual(self.runtime.state_of(container)["status"], "paused")
        size = os.path.getsize(out)
        with self.assertRaises(AssertionError):
            host.wait_for(lambda: os.path.getsize(out) > size, 0.5, "a tick")  # must not come
        self.assert_clean(self.runtime.call("resume", container))
        host.wait_for(lambda: os.path.getsize(out) > size, 20, "the guest ticks again")
        self.assertEqual(self.runtime.state_of(container)["status"], "running")


class Exec(oci.OciCase):
    def setUp(self):
        super().setUp()
        self.container = self.bundle(["/bin/sleep", "1000"], env=["FROM_SPEC=yes"])
        self.assertEqual(self.create(self.container)[0], 0)
        self.assert_clean(self.runtime.call("start", self.container))

    def test_runs_in_the_same_container(self):
        done = self.runtime.call("exec", self.container, "/bin/sh", "-c", "echo x > /made; hostname; cat /proc/1/comm; echo $FROM_SPEC")
        self.assert_clean(done, "guest\nsleep\nyes\n")
        self.assert_clean(self.runtime.call("exec", self.container, "/bin/cat", "/made"), "x\n")

    def test_passes_streams_and_exit_code(self):
        done = self.runtime.call("exec", self.container, "/bin/sh", "-c", "cat; echo err >&2; exit 5", stdin="in\n")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (5, "in\n", "err\n"))

    def test_takes_user_directory_and_environment(self):
        done = self.runtime.call("exec", "--user", "33:33", "--cwd", "/usr", "--env", "MORE=1", self.container,
                                 "/bin/sh", "-c", "id -u; id -g; pwd; echo $MORE")
        self.assert_clean(done, "33\n33\n/usr\n1\n")

    def test_names_a_program_that_is_not_there(self):
        done = self.runtime.call("exec", self.container, "/bin/no-such-program")
        self.assert_refused(done, "no-such-program")

    def test_many_at_once(self):
        running = [self.runtime.start("exec", self.container, "/bin/sh", "-c", f"echo {n}; exit {n}") for n in range(8)]
        for number, process in enumerate(running):
            out, err = process.communicate(timeout=60)
            self.assertEqual((process.returncode, out), (number, f"{number}\n"), err)

    def test_a_killed_exec_leaves_the_container(self):
        done = self.runtime.call("exec", self.container, "/bin/sh", "-c", "kill -9 $$")
        self.assertEqual(done.returncode, 137)
        self.assertEqual(self.runtime.state_of(self.container)["status"], "running")

    def test_ends_with_the_container(self):
        running = self.runtime.start("exec", self.container, "/bin/sh", "-c", "echo ready; sleep 1000")
        self.assertEqual(running.stdout.readline(), "ready\n")
        self.runtime.call("kill", self.container, "KILL")
        running.communicate(timeout=30)
        self.assertNotEqual(running.returncode, 0)

    def test_with_a_terminal(self):
        master, slave = pty.openpty()
        process = self.runtime.start("exec", "--tty", self.container, "/bin/sh", stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        seen = Terminal(master)
        seen.say("tty; stty size >/dev/null && echo has-size\n")
        seen.expect("/dev/pts/")
        seen.expect("has-size")
        seen.say("sleep 1003\n")  # not the container's own sleep
        host.wait_for(lambda: "sleep 1003" in self.runtime.call("exec", self.container, "/bin/ps").stdout.replace("/bin/", ""),
                      20, "the sleep runs")
        seen.say("\x03")  # ^C ends the sleep, not the shell
        seen.say("echo still-$((40 + 2))\n")
        seen.expect("still-42")
        seen.say("exit 3\n")
        self.assertEqual(process.wait(30), 3)
        seen.close()


class Terminal:
    """The master side of a terminal, read in the background."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.text = ""
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while True:
            try:
                select.select([self.descriptor], [], [])
                data = os.read(self.descriptor, 65536)
            except (OSError, ValueError):
                return  # EIO: the other side is closed
            if not data:
                return
            self.text += data.decode("utf-8", "replace")

    def say(self, text):
        os.write(self.descriptor, text.encode())

    def expect(self, text):
        host.wait_for(lambda: text in self.text, 20, lambda: f"{text!r} on the terminal; it says {self.text!r}")

    def close(self):
        self.thread.join(10)
        os.close(self.descriptor)


@only_moat
class Do(oci.OciCase):
    def test_runs_a_command_over_the_hosts_files(self):
        done = self.runtime.call("do", "--", "/bin/sh", "-c", "uname -r; id -u; cat /etc/hostname >/dev/null && echo read")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.split()
        self.assertNotEqual(lines[0], os.uname().release)
        self.assertEqual(lines[1:], ["0", "read"])

    def test_writes_do_not_reach_the_host(self):
        target = os.path.join(self.directory, "written")
        self.assert_clean(self.runtime.call("do", "--", "/bin/sh", "-c", f"echo x > {target} && cat {target}"), "x\n")
        self.assertFalse(os.path.exists(target))

    def test_passes_the_exit_code(self):
        self.assertEqual(self.runtime.call("do", "--", "/bin/sh", "-c", "exit 17").returncode, 17)

    def test_spec_writes_a_config_that_runs(self):
        container = self.bundle(["/bin/true"])
        directory = self.path_of(container)
        os.unlink(os.path.join(directory, "config.json"))
        self.assert_clean(self.runtime.call("spec", "--bundle", directory))
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as source:
            made = json.load(source)
        self.assertIn("process", made)
        made["root"]["path"] = harness.busybox_root()
        made["process"]["args"] = ["/bin/echo", "by spec"]
        made["process"]["terminal"] = False
        with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as out:
            json.dump(made, out)
        self.assert_clean(self.run_container(container), "by spec\n")
