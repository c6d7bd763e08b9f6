"""kubectl's own commands: run, exec, attach, logs, port-forward, cp, debug; by WebSocket and by SPDY."""

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import urllib.request

from case import Case, container, web
from node import IMAGE

# What kubectl's environment says: WebSocket, and SPDY.
PROTOCOLS = ({}, {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"})
LARGE = 64 << 20


class Terminal:
    """kubectl on a terminal of ours."""

    def __init__(self, cluster, arguments, rows, columns, **environment):
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(cluster.kubectl_command(*arguments), stdin=slave, stdout=slave, stderr=slave,
                                        env=cluster.kubectl_environment(**environment), start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.seen = b""

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def expect(self, pattern, seconds=60):
        """Reads until `pattern` is there; what was read up to its end is gone then."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.seen)
            if match:
                self.seen = self.seen[match.end():]
                return match
            if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"not within {seconds} s: {pattern!r}; the terminal shows {self.seen!r}")
            try:
                self.seen += os.read(self.master, 65536)
            except OSError:  # EIO: kubectl has ended
                raise AssertionError(f"kubectl ended before {pattern!r}; the terminal shows {self.seen!r}") from None

    def end(self):
        """kubectl's exit status."""
        try:
            return self.process.wait(60)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            os.close(self.master)


class Kubectl:
    def overrides(self):
        return "--overrides=" + json.dumps({"spec": {"runtimeClassName": self.handler, "terminationGracePeriodSeconds": 1}})

    def kubectl_run(self, name, *arguments, **more):
        return self.kubectl("run", name, "--image=" + IMAGE, "--image-pull-policy=Never", self.overrides(), *arguments, **more)

    def test_run_and_exec(self):
        self.kubectl_run("runs", "--", "sleep", "1000")
        self.wait_ready("runs")
        self.assert_kernel("runs")
        for environment in PROTOCOLS:
            self.assertEqual(self.kubectl("exec", "runs", "--", "sh", "-c", "echo out; echo err >&2", **environment), "out\n")
            self.assertEqual(self.kubectl("exec", "-i", "runs", "--", "sh", "-c", "tr a-z A-Z", stdin=b"loud\n", **environment), "LOUD\n")
            self.kubectl("exec", "runs", "--", "sh", "-c", "exit 7", status=7, **environment)
            self.kubectl("exec", "runs", "--", "sh", "-c", "kill -9 $$", status=137, **environment)
            with self.assertRaisesRegex(AssertionError, "no-such-program"):
                self.kubectl("exec", "runs", "--", "no-such-program", **environment)

    def test_run_to_its_end_with_input(self):
        for number, environment in enumerate(PROTOCOLS):
            answer = self.kubectl_run(f"once-{number}", "--rm", "-i", "--quiet", "--restart=Never", "--", "sh", "-c", "read word; echo got $word",
                                      stdin=b"hello\n", **environment)
            self.assertEqual(answer, "got hello\n")
            self.assertEqual(self.pod(f"once-{number}"), {})
        with self.assertRaisesRegex(AssertionError, "status 3"):
            self.kubectl_run("fails", "--rm", "-i", "--quiet", "--restart=Never", "--", "sh", "-c", "read word; exit 3", stdin=b"hello\n")

    def test_exec_on_a_terminal_that_changes_its_size(self):
        self.run_pod("terminal", container("main", "exec sleep 1000"))
        # The size is told beside the start: asked until it has arrived.
        script = ("until [ \"$(stty size)\" = '33 101' ]; do usleep 10000; done; tty; trap 'echo winched $(stty size); exit 6' WINCH; echo ready; "
                  "while :; do usleep 10000; done")
        for environment in PROTOCOLS:
            terminal = Terminal(self.cluster, ("exec", "-it", "terminal", "--", "sh", "-c", script), 33, 101, **environment)
            terminal.expect(rb"/dev/pts/\d+\r\n")
            terminal.expect(rb"ready\r\n")
            terminal.resize(44, 132)
            terminal.expect(rb"winched 44 132\r\n")
            self.assertEqual(terminal.end(), 6)

    def test_job_control_on_a_terminal(self):
        self.run_pod("terminal", container("main", "exec sleep 1000"))
        terminal = Terminal(self.cluster, ("exec", "-it", "terminal", "--", "sh"), 24, 80)
        terminal.expect(rb"# ")
        job = "sh -c 'echo rea\"\"dy; exec sleep 1000'\r"  # says it when it is the terminal's foreground group
        terminal.type(job)
        terminal.expect(rb"ready\r\n")
        terminal.type("\x03")
        terminal.expect(rb"# ")
        terminal.type(job)
        terminal.expect(rb"ready\r\n")
        terminal.type("\x1a")
        terminal.expect(rb"Stopped")
        terminal.expect(rb"# ")
        terminal.type("kill -9 %1; exit 5; exit 5\r")  # the first may only warn of the stopped job
        self.assertEqual(terminal.end(), 5)

    def test_attach_to_a_running_container(self):
        self.run_pod("echoes", container("main", "while read word; do echo heard $word; done; exec sleep 1000", stdin=True))
        for environment in PROTOCOLS:
            attached = self.cluster.follow("attach", "-i", "--quiet", "echoes", **environment)
            attached.stdin.write(b"something\n")
            attached.stdin.flush()
            self.assertEqual(attached.stdout.readline(), b"heard something\n")
            attached.send_signal(signal.SIGTERM)
            attached.communicate(timeout=30)
        self.assertEqual(self.logs("echoes"), "heard something\n" * 2)

    def test_attach_to_a_terminal(self):
        self.run_pod("screen", container("main", "exec sh", stdin=True, tty=True))
        for environment in PROTOCOLS:
            terminal = Terminal(self.cluster, ("attach", "-it", "screen"), 30, 90, **environment)
            terminal.type("\r")
            terminal.expect(rb"# ")
            terminal.type("until [ \"$(stty size)\" = '30 90' ]; do usleep 10000; done; echo si''zed\r")
            terminal.expect(rb"sized\r\n")
            terminal.process.send_signal(signal.SIGTERM)
            terminal.end()

    def test_logs_of_two_lives(self):
        script = "[ -e /shared/again ] || { echo first life; touch /shared/again; exit 1; }; i=0; while [ $i -lt 200 ]; do echo line-$i; i=$((i+1)); done; " \
                 "until [ -e /shared/go ]; do usleep 10000; done; echo the end"
        self.start_pod("talks", container("main", script, volumeMounts=[{"name": "shared", "mountPath": "/shared"}]),
                       restartPolicy="OnFailure", volumes=[{"name": "shared", "emptyDir": {}}])
        lines = "".join(f"line-{i}\n" for i in range(200))
        self.wait(lambda: self.status("talks").get("restartCount") == 1 and self.logs("talks") == lines, lambda: f"the second life: {self.told(self.pod('talks'))}")
        self.assertEqual(self.logs("talks", "--previous"), "first life\n")
        self.assertEqual(self.logs("talks", "--tail=2"), "line-198\nline-199\n")
        self.assertEqual(self.logs("talks", "--limit-bytes=13"), lines[:13])
        self.assertRegex(self.logs("talks", "--tail=1", "--timestamps"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line-199\n$")
        follower = self.cluster.follow("logs", "-f", "--tail=1", "talks")
        self.assertEqual(follower.stdout.readline(), b"line-199\n")
        self.in_pod("talks", "touch /shared/go")
        self.assertEqual(follower.communicate(timeout=60)[0], b"the end\n")
        self.assertEqual(follower.returncode, 0)

    def test_logs_that_are_rotated_are_followed(self):
        # 16 KiB a file: kubelet looks every three seconds.
        script = "i=0; while [ $i -lt 3000 ]; do echo line-$i; i=$((i+1)); [ $((i % 250)) = 0 ] && sleep 0.7; done"
        self.run_pod("rotates", container("main", f"until [ -e /tmp/go ]; do usleep 10000; done; {script}; exec sleep 1000"))
        follower = self.cluster.follow("logs", "-f", "rotates")
        self.in_pod("rotates", "touch /tmp/go")
        seen = []
        while not seen or seen[-1] != b"line-2999\n":
            seen.append(follower.stdout.readline())
            self.assertTrue(seen[-1], f"the log ended after {seen[-2:]}")
        follower.send_signal(signal.SIGTERM)
        follower.communicate(timeout=30)
        self.assertEqual(seen, [f"line-{i}\n".encode() for i in range(3000)])

    @contextlib.contextmanager
    def forwarded(self, *arguments, **environment):
        """The port on our side; kubectl has ended behind it."""
        process = self.cluster.follow("port-forward", *arguments, **environment)
        try:
            line = process.stdout.readline().decode()
            match = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) ", line)
            self.assertTrue(match, f"port-forward says: {line} {'' if match else process.stderr.read()}")
            yield int(match.group(1))
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)

    @staticmethod
    def fetch(port, path="/"):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.read()

    def test_port_forward(self):
        self.run_pod("serves", web("forwarded", 8080))
        self.in_pod("serves", "dd if=/dev/urandom of=/www/large bs=1M count=8 2>/dev/null")
        wanted = self.in_pod("serves", "sha256sum < /www/large").split()[0]
        for environment in PROTOCOLS:
            with self.forwarded("pod/serves", ":8080", **environment) as port:
                for _ in range(3):
                    self.assertEqual(self.fetch(port), b"forwarded\n")
                self.assertEqual(hashlib.sha256(self.fetch(port, "/large")).hexdigest(), wanted)

    def test_copy_both_ways_and_a_large_stream(self):
        self.run_pod("files", container("main", "exec sleep 1000"))
        here = os.path.join(self.directory, "large")
        with open(here, "wb") as out:
            out.write(os.urandom(1 << 20) * (LARGE >> 20))
        with open(here, "rb") as source:
            content = source.read()
        wanted = hashlib.sha256(content).hexdigest()
        tree = os.path.join(self.directory, "tree")
        os.makedirs(os.path.join(tree, "below"))
        for name in ("one", "below/two"):
            with open(os.path.join(tree, name), "w", encoding="ascii") as out:
                out.write(name)
        for environment in PROTOCOLS:
            self.kubectl("cp", here, "files:/tmp/large", **environment)
            self.assertEqual(self.in_pod("files", "sha256sum < /tmp/large").split()[0], wanted)
            back = os.path.join(self.directory, "back")
            self.kubectl("cp", "files:/tmp/large", back, **environment)
            with open(back, "rb") as source:
                self.assertEqual(hashlib.sha256(source.read()).hexdigest(), wanted)
            self.kubectl("cp", tree, "files:/tmp/tree", **environment)
            self.assertEqual(self.in_pod("files", "cat /tmp/tree/one /tmp/tree/below/two"), "onebelow/two")
            self.assertEqual(self.kubectl("exec", "-i", "files", "--", "sha256sum", stdin=content, **environment).split()[0], wanted)
            self.in_pod("files", "rm -r /tmp/large /tmp/tree")

    def converse(self, *arguments):
        """What kubectl with a pipe at its input prints, which ends with its command: an input that ended before would detach it."""
        process = self.cluster.follow(*arguments)
        process.stdin.write(b"begin\n")
        process.stdin.flush()
        try:
            return process.stdout.read().decode()
        finally:
            _, errors = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 0, errors.decode())

    def test_debug_by_an_ephemeral_container(self):
        self.run_pod("sick", container("main", "exec sleep 1234"))
        debug = ("debug", "sick", "--image=" + IMAGE, "--image-pull-policy=Never", "--profile=general", "--quiet", "-i")
        beside = self.converse(*debug, "-c", "beside", "--", "sh", "-c", "read word; echo $word; ps -o args | grep -c '[s]leep 1234'; true")
        self.assertEqual(beside, "begin\n0\n")
        target = (*debug, "-c", "within", "--target=main", "--", "sh", "-c",
                  "read word; ps -o args | grep '[s]leep 1234'; cat /proc/1/root/etc/hostname; ls /proc/1/fd | head -1")
        if self.handler == "native":  # cri/README.md
            process = self.cluster.follow(*target)
            self.wait(lambda: "TARGET" in str(self.status("sick", "within", "ephemeralContainerStatuses").get("state", {}).get("waiting")),
                      lambda: f"a refusal that names it: {self.pod('sick')['status'].get('ephemeralContainerStatuses')}")
            process.terminate()
            process.communicate(timeout=30)
            return
        self.assertEqual(self.converse(*target), "sleep 1234\nsick\n0\n")
        names = [c["name"] for c in self.pod("sick")["status"]["ephemeralContainerStatuses"]]
        self.assertEqual(sorted(names), ["beside", "within"])

    def test_wait_describe_and_events(self):
        self.run_pod("described", container("main", "exec sleep 1000", ports=[{"containerPort": 80}]))
        text = self.kubectl("describe", "pod", "described")
        for word in ("Runtime Class Name:  " + self.handler, "Container ID:  moat://", "Container started"):
            self.assertIn(word, text)


class OnMoat(Kubectl, Case):
    handler = "moat"


class OnNative(Kubectl, Case):
    handler = "native"
