"""What people type: crictl against moatd, as in the README."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
import urllib.request

import harness
import host

IMAGE = "moat.test/busybox:latest"


class Crictl(harness.Case):
    def setUp(self):
        super().setUp()
        self.socket = os.path.join(self.directory, "s")
        self.config = os.path.join(self.directory, "crictl.yaml")
        with open(self.config, "w", encoding="ascii") as out:
            out.write(f"runtime-endpoint: unix://{self.socket}\nimage-endpoint: unix://{self.socket}\ntimeout: 30\n")
        self.log = open(os.path.join(self.directory, "log"), "wb")
        self.daemon = subprocess.Popen(
            [os.path.join(harness.BUILD, "moatd"), "--socket", f"unix://{self.socket}", "--root", os.path.join(self.directory, "lib"),
             "--state", os.path.join(self.directory, "run"), "--cni-conf-dir", os.path.join(self.directory, "net.d")],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)
        self.addCleanup(self.stop)
        host.wait_for(lambda: self.call("version").returncode == 0, 30, lambda: self.call("version").stderr + self.daemon_log())

    def daemon_log(self):
        return host.read(self.log.name)[-3000:]

    def stop(self):
        if self.daemon.poll() is None:
            self.call("rmp", "--all", "--force")
            self.daemon.terminate()
        try:
            status = self.daemon.wait(20)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            status = self.daemon.wait()
        self.log.close()
        self.assertEqual(status, 0, f"moatd's exit status; its log:\n{self.daemon_log()}")

    def call(self, *arguments, timeout=60):
        return subprocess.run([os.environ["MOAT_CRICTL"], "--config", self.config, *arguments], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout, check=False)

    def crictl(self, *arguments):
        """Runs crictl, which has to succeed, and returns what it printed."""
        done = self.call(*arguments)
        self.assertEqual(done.returncode, 0, f"crictl {' '.join(arguments)}: {done.stderr}\n{self.daemon_log()}")
        return done.stdout

    def load(self, name="busybox", reference=IMAGE):
        archive = os.path.join(self.directory, name + ".tar")
        subprocess.run([os.path.join(harness.IMAGES, "mkimage.py"), "archive", name, archive, "--ref", reference], check=True,
                       stdout=subprocess.DEVNULL)
        return self.load_archive(archive)

    def load_archive(self, path):
        return subprocess.run([os.path.join(harness.BUILD, "moatd"), "--root", os.path.join(self.directory, "lib"), "image", "load", path],
                              capture_output=True, text=True, timeout=60, check=False)

    def write(self, name, value):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as out:
            json.dump(value, out)
        return path

    def pod(self):
        logs = os.path.join(self.directory, "logs")
        os.makedirs(logs, exist_ok=True)
        config = self.write("pod.json", {
            "metadata": {"name": "web", "namespace": "default", "uid": "u1", "attempt": 1}, "hostname": "web",
            "log_directory": logs, "linux": {"cgroup_parent": "/" + harness.cgroup()}})
        return self.crictl("runp", config).strip(), config

    def container(self, pod, config, name, script):
        file = self.write(name + ".json", {
            "metadata": {"name": name}, "image": {"image": IMAGE}, "command": ["/bin/sh", "-c", script],
            "log_path": name + ".log", "linux": {}})
        container = self.crictl("create", pod, file, config).strip()
        self.crictl("start", container)
        return container

    def wait_exited(self, container):
        return host.wait_for(lambda: (lambda s: s if s["state"] == "CONTAINER_EXITED" else None)(
            json.loads(self.crictl("inspect", container))["status"]), 30, "the container ends")

    def test_version_and_info(self):
        self.assertIn("RuntimeName:  moat", self.crictl("version"))
        info = json.loads(self.crictl("info"))
        self.assertEqual({c["type"]: c["status"] for c in info["status"]["conditions"]}, {"RuntimeReady": True, "NetworkReady": True})

    def test_a_pod_by_hand(self):
        self.assertEqual(self.load().returncode, 0)
        self.assertRegex(self.crictl("images"), r"moat\.test/busybox\s+latest")
        pod, config = self.pod()
        self.assertIn("Ready", self.crictl("pods"))
        first = self.container(pod, config, "first", "echo hello; echo problem >&2; uname -r; exit 3")
        second = self.container(pod, config, "second", "echo up; sleep 1000")
        status = self.wait_exited(first)
        self.assertEqual((status["exitCode"], status["reason"]), (3, "Error"))
        logs = self.call("logs", first)
        self.assertRegex(logs.stdout, r"^hello\n")
        self.assertNotIn(os.uname().release, logs.stdout)
        self.assertEqual(logs.stderr, "problem\n")
        table = self.crictl("ps", "--all")
        self.assertRegex(table, r"Exited\s+first")
        self.assertRegex(table, r"Running\s+second")
        self.assertEqual(self.crictl("exec", "--sync", second, "/bin/hostname").rstrip("\n"), "web")  # crictl adds lines
        done = self.call("exec", "--sync", second, "/bin/sh", "-c", "exit 4")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("4", done.stderr)
        self.crictl("stop", "--timeout", "0", second)
        self.crictl("rm", first, second)
        self.crictl("stopp", pod)
        self.crictl("rmp", pod)
        self.assertEqual(self.crictl("pods", "-q").strip(), "")
        self.crictl("rmi", IMAGE)
        self.assertEqual(self.crictl("images", "-q").strip(), "")

    def at_a_terminal(self, *arguments):
        """Starts crictl at a pty. Returns (process, the pty's master, a function that waits for a text and returns all so far)."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        process = subprocess.Popen([os.environ["MOAT_CRICTL"], "--config", self.config, *arguments], stdin=slave, stdout=slave, stderr=slave,
                                   start_new_session=True)
        os.close(slave)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        seen = bytearray()

        def wait(text):
            def look():
                while select.select([master], [], [], 0.05)[0]:
                    try:
                        some = os.read(master, 65536)
                    except OSError:
                        some = b""
                    if not some:
                        break
                    seen.extend(some)
                return text.encode() in seen
            host.wait_for(look, 30, lambda: f"{text!r} in {bytes(seen)!r}")
            return bytes(seen).decode(errors="replace")
        return process, master, wait

    def test_exec_attach_and_port_forward(self):
        self.assertEqual(self.load().returncode, 0)
        pod, config = self.pod()
        web = self.container(pod, config, "web", "mkdir /www; echo page > /www/index.html; exec httpd -f -p 8080 -h /www")
        for transport in ("spdy", "websocket"):
            with self.subTest(transport):
                done = self.call("exec", "--transport", transport, web, "/bin/sh", "-c", "echo out; echo err >&2; exit 5")
                self.assertEqual((done.stdout, done.stderr.splitlines()[0]), ("out\n", "err"))
                self.assertNotEqual(done.returncode, 0)
                self.assertIn("5", done.stderr)
                done = subprocess.run([os.environ["MOAT_CRICTL"], "--config", self.config, "exec", "-i", "--transport", transport, web, "/bin/wc", "-c"],
                                      input="x" * 300000, capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual(done.stdout.strip(), "300000", done.stderr)
                shell, keyboard, wait = self.at_a_terminal("exec", "-it", "--transport", transport, web, "/bin/sh")
                wait("#")
                os.write(keyboard, b"stty size; echo $((40 + 2))\n")
                self.assertIn("33 99", wait("42"))
                os.write(keyboard, b"exit\n")
                host.wait_for(lambda: shell.poll() is not None, 30, "the shell ends")
                os.close(keyboard)

                # The local port that crictl has chosen is in what it prints.
                forward = subprocess.Popen([os.environ["MOAT_CRICTL"], "--config", self.config, "port-forward", "--transport", transport, pod, ":8080"],
                                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                self.addCleanup(forward.stdout.close)
                self.addCleanup(forward.kill)
                port = re.search(r"127\.0\.0\.1:(\d+) ->", forward.stdout.readline()).group(1)
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                    self.assertEqual(answer.read(), b"page\n")
                forward.terminate()
                forward.wait(30)

    def test_attach_to_a_terminal_of_an_earlier_daemon(self):
        self.assertEqual(self.load().returncode, 0)
        pod, config = self.pod()
        file = self.write("shell.json", {
            "metadata": {"name": "shell"}, "image": {"image": IMAGE}, "command": ["/bin/sh"], "stdin": True, "tty": True,
            "log_path": "shell.log", "linux": {}})
        shell = self.crictl("create", pod, file, config).strip()
        self.crictl("start", shell)
        self.daemon.kill()
        self.daemon.wait()
        self.daemon = subprocess.Popen(self.daemon.args, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)
        host.wait_for(lambda: self.call("version").returncode == 0, 30, self.daemon_log)
        process, keyboard, wait = self.at_a_terminal("attach", "-it", shell)
        os.write(keyboard, b"echo $((40 + 2))\n")
        wait("42")
        os.write(keyboard, b"exit 4\n")
        self.assertEqual(self.wait_exited(shell)["exitCode"], 4)
        host.wait_for(lambda: process.poll() is not None, 30, "crictl ends")
        self.assertIn("42", host.read(os.path.join(self.directory, "logs", "shell.log")))
        os.close(keyboard)

    def test_the_daemon_is_killed_and_started_again(self):
        self.assertEqual(self.load().returncode, 0)
        pod, config = self.pod()
        container = self.container(pod, config, "tick", "i=0; while :; do echo $i; i=$((i + 1)); usleep 5000; done")
        log = os.path.join(self.directory, "logs", "tick.log")
        host.wait_for(lambda: host.read(log).count("\n") > 20, 20, "the guest ticks")
        self.daemon.kill()
        self.daemon.wait()
        size = os.path.getsize(log)
        host.wait_for(lambda: os.path.getsize(log) > size + 2000, 20, "the guest ticks on without moatd")
        self.daemon = subprocess.Popen(self.daemon.args, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)
        host.wait_for(lambda: self.call("version").returncode == 0, 30, self.daemon_log)
        self.assertEqual(self.crictl("ps", "-q").strip(), container)
        self.assertEqual(self.crictl("pods", "-q").strip(), pod)
        self.crictl("stop", "--timeout", "0", container)
        numbers = [line.split()[3] for line in host.read(log).splitlines()]
        self.assertEqual(numbers, [str(n) for n in range(len(numbers))])

    def test_archives_that_must_not_be_loaded(self):
        for name in ("wrong-digest", "truncated-layer", "truncated-tar", "wrong-diff-id", "not-gzip"):
            done = self.load(name, f"moat.test/{name}:latest")
            self.assertNotEqual(done.returncode, 0, f"{name} was loaded")
            self.assertNotEqual(done.stderr.strip(), "", name)
        broken = os.path.join(self.directory, "broken.tar")
        for content in (b"", b"not a tar" * 1000, open(os.path.join(self.directory, "wrong-digest.tar"), "rb").read()[:100000]):
            with open(broken, "wb") as out:
                out.write(content)
            done = self.load_archive(broken)
            self.assertNotEqual(done.returncode, 0, content[:20])
        self.assertEqual(self.crictl("images", "-q").strip(), "")

    def test_what_is_not_built_says_so(self):
        self.assertEqual(self.load().returncode, 0)
        pod, config = self.pod()
        container = self.container(pod, config, "idle", "sleep 1000")
        done = self.call("checkpoint", "--export", os.path.join(self.directory, "checkpoint.tar"), container)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "(?i)unimplemented")

    def test_figures_events_and_limits(self):
        self.assertEqual(self.load().returncode, 0)
        told = os.path.join(self.directory, "events")
        with open(told, "wb") as out:
            listener = subprocess.Popen([os.environ["MOAT_CRICTL"], "--config", self.config, "events"], stdin=subprocess.DEVNULL,
                                        stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        self.addCleanup(lambda: (listener.kill(), listener.wait()))
        # crictl does not say when it listens: pods come and go until it has heard of one.
        heard = []

        def hears():
            pod, _ = self.pod()
            self.crictl("rmp", "--force", pod)
            heard.append(pod)
            return any(one in host.read(told) for one in heard)
        host.wait_for(hears, 30, lambda: "crictl events: " + host.read(told))
        pod, config = self.pod()
        container = self.container(pod, config, "busy", "while :; do :; done")
        host.wait_for(lambda: f'"{container}"' in host.read(told) and "CONTAINER_STARTED_EVENT" in host.read(told), 30, lambda: host.read(told))

        def burnt():
            stats = json.loads(self.crictl("stats", "--output", "json", container))["stats"]
            return stats if int(stats[0]["cpu"]["usageCoreNanoSeconds"]["value"]) > 200_000_000 else None
        stats = host.wait_for(burnt, 60, "CPU time in crictl stats")
        self.assertEqual(stats[0]["attributes"]["id"], container)
        self.assertGreater(int(stats[0]["memory"]["workingSetBytes"]["value"]), 0)
        self.assertRegex(self.crictl("stats", "--seconds", "1"), container[:13] + r"\s+busy\s+\d")
        pods = json.loads(self.crictl("statsp", "--output", "json"))["stats"]
        self.assertEqual([one["attributes"]["id"] for one in pods], [pod])
        self.assertIn("defaultInterface", pods[0]["linux"]["network"])
        metrics = json.loads(self.crictl("metricsp", "--output", "json"))["podMetrics"]
        self.assertEqual([one["podSandboxId"] for one in metrics], [pod])
        described = {one["name"] for one in json.loads(self.crictl("metricdescs", "--output", "json"))["descriptors"]}
        self.assertEqual(len(described), 56)
        self.assertLessEqual({one["name"] for one in metrics[0]["containerMetrics"][0]["metrics"]}, described)
        self.crictl("update", "--memory", str(64 << 20), "--cpu-share", "256", container)
        limits = json.loads(self.crictl("inspect", container))["status"]["resources"]["linux"]
        self.assertEqual((limits["memoryLimitInBytes"], limits["cpuShares"]), (str(64 << 20), "256"))
        self.assertNotEqual(self.call("update", "--cpuset-cpus", "4000", container).returncode, 0)
        self.crictl("imagefsinfo")

    def test_a_pod_file_that_is_not_one(self):
        self.assertNotEqual(self.call("runp", self.write("bad.json", {"metadata": {}})).returncode, 0)
        self.assertNotEqual(self.call("runp", self.write("bad.json", {"metadata": {"name": "../../x", "namespace": "n", "uid": "u"},
                                                                      "log_directory": "relative"})).returncode, 0)
        self.assertEqual(self.crictl("pods", "-q").strip(), "")

    def test_the_units_and_files_of_manifests_are_well_formed(self):
        directory = os.path.join(harness.ROOT, "manifests")
        names = os.listdir(directory)
        self.assertIn("runtimeclass.yaml", names)
        self.assertIn("moatd.service", names)
        copy = os.path.join(self.directory, "copy.yaml")
        shutil.copy(os.path.join(directory, "crictl.yaml"), copy)
        text = host.read(copy)
        self.assertTrue(re.search(r"^runtime-endpoint: unix:///", text, re.M), text)
