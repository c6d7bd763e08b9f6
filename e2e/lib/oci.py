"""OCI bundles and the OCI runtime that a test drives: moat, or runc as the reference (RUNTIME=runc)."""

import json
import os
import shutil
import subprocess

import harness
import host

RUNTIME = os.environ.get("RUNTIME", os.path.join(harness.BUILD, "moat"))
IS_RUNC = os.path.basename(RUNTIME) in ("runc", "crun")
DEFAULT_CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
                        "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
                        "CAP_AUDIT_WRITE"]
ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=xterm"]


def spec(arguments, root, container_id, **more):
    """A config.json as a dict: what a container engine sends for a plain container."""
    return {
        "ociVersion": "1.0.2",
        "hostname": more.get("hostname", "guest"),
        "root": {"path": root, "readonly": more.get("readonly", False)},
        "process": {
            "terminal": more.get("terminal", False),
            "user": {"uid": more.get("uid", 0), "gid": more.get("gid", 0), "additionalGids": more.get("additional_gids", [])},
            "args": arguments,
            "env": ENVIRONMENT + more.get("env", []),
            "cwd": more.get("cwd", "/"),
            "noNewPrivileges": True,
            "capabilities": {name: DEFAULT_CAPABILITIES for name in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
            *more.get("mounts", []),
        ],
        "annotations": more.get("annotations", {}),
        "linux": {
            "cgroupsPath": f"/{harness.cgroup()}/{container_id}",
            "resources": {"devices": [{"allow": False, "access": "rwm"}], **more.get("resources", {})},
            "namespaces": more.get("namespaces", [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")]),
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/irq", "/proc/sys"],
        },
    }


class Driver:
    """Runs the runtime's commands with a state root of its own."""

    def __init__(self, directory):
        self.state = os.path.join(directory, "state")

    def command(self, verb, *arguments):
        return [RUNTIME, "--root", self.state, verb, *arguments]

    def call(self, verb, *arguments, stdin=None, timeout=60, binary=False):
        """Runs a command to its end. Never raises for its exit status."""
        return subprocess.run(self.command(verb, *arguments), input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                              capture_output=True, text=not binary, errors=None if binary else "replace", timeout=timeout, check=False)

    def start(self, verb, *arguments, **popen):
        """Runs a command beside the test. The caller waits for it."""
        popen.setdefault("stdin", subprocess.DEVNULL)
        popen.setdefault("stdout", subprocess.PIPE)
        popen.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen(self.command(verb, *arguments), text=True, errors="replace", **popen)

    def state_of(self, container_id):
        """`state`'s answer as a dict, or None when there is no such container."""
        answer = self.call("state", container_id)
        return json.loads(answer.stdout) if answer.returncode == 0 else None


class OciCase(harness.Case):
    """A test with a runtime and a way to make bundles; deletes what it made."""

    def setUp(self):
        super().setUp()
        self.runtime = Driver(self.directory)
        self.made = []
        self.overlays = []
        self.addCleanup(self.delete_all)

    def new_id(self, hint="c"):
        """An id that no other test uses."""
        return f"{hint}-{os.path.basename(self.directory)}-{len(self.made)}".replace("_", "-").lower()

    def bundle(self, arguments, root=None, container_id=None, **more):
        """Makes a bundle and returns its container's id."""
        container_id = container_id or self.new_id()
        directory = os.path.join(self.directory, container_id)
        os.mkdir(directory)
        root = root or harness.busybox_root()
        if IS_RUNC and more.get("private_root", True):
            root = self.overlay(root, directory)  # moat never writes to the root it is given
        with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as out:
            json.dump(spec(arguments, root, container_id, **more), out)
        self.made.append(container_id)
        return container_id

    def overlay(self, lower, directory):
        """What moat does inside, done outside for runc."""
        for name in ("upper", "work", "merged"):
            os.mkdir(os.path.join(directory, name))
        merged = os.path.join(directory, "merged")
        # On a tmpfs: the directory may itself be on an overlay, which cannot be an upper.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", os.path.join(directory, "upper")], check=True)
        for name in ("u", "w"):
            os.mkdir(os.path.join(directory, "upper", name))
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                        f"lowerdir={lower},upperdir={directory}/upper/u,workdir={directory}/upper/w", merged], check=True)
        self.overlays.append(directory)
        return merged

    def path_of(self, container_id):
        return os.path.join(self.directory, container_id)

    def create(self, container_id, **popen):
        """`create`; its streams are the container's. Returns the finished command."""
        popen.setdefault("stdin", subprocess.DEVNULL)
        popen.setdefault("stdout", subprocess.DEVNULL)
        with open(os.path.join(self.path_of(container_id), "create.err"), "wb+") as errors:
            # Files, not pipes: the container keeps what create was given, and a pipe would never end.
            popen.setdefault("stderr", errors)
            status = subprocess.run(self.runtime.command("create", "--bundle", self.path_of(container_id), container_id),
                                    timeout=60, check=False, **popen).returncode
            errors.seek(0)
            return status, errors.read().decode("utf-8", "replace")

    def run_container(self, container_id, stdin=None, timeout=60, **more):
        """`run` to its end. Returns the finished process with its output."""
        return self.runtime.call("run", "--bundle", self.path_of(container_id), container_id, stdin=stdin, timeout=timeout, **more)

    def run_shell(self, script, timeout=60, root=None, shell="/bin/sh", **more):
        """Runs a shell script in a container of its own and returns the finished process."""
        container_id = self.bundle([shell, "-c", script], root=root, **more)
        return self.run_container(container_id, timeout=timeout)

    def wait_for_state(self, container_id, wanted, seconds=20):
        def look():
            state = self.runtime.state_of(container_id)
            return state if state and state["status"] == wanted else None
        return host.wait_for(look, seconds, lambda: f"{container_id} {wanted}; it is {self.runtime.state_of(container_id)}")

    def delete_all(self):
        for container_id in reversed(self.made):
            self.runtime.call("delete", "--force", container_id)
        for directory in self.overlays:
            subprocess.run(["umount", os.path.join(directory, "merged")], check=False)
            subprocess.run(["umount", os.path.join(directory, "upper")], check=False)
        shutil.rmtree(self.runtime.state, ignore_errors=True)

    def assert_clean(self, done, stdout=None, status=0):
        """A command ended with `status`, printed `stdout` exactly (if given)."""
        self.assertEqual(done.returncode, status, f"stdout: {done.stdout!r}\nstderr: {done.stderr!r}")
        if stdout is not None:
            self.assertEqual(done.stdout, stdout, f"stderr: {done.stderr!r}")

    def assert_refused(self, done, *words):
        """A command failed and its error names each of `words`."""
        self.assertNotEqual(done.returncode, 0, f"stdout: {done.stdout!r}")
        for word in words:
            self.assertIn(word, done.stderr)
