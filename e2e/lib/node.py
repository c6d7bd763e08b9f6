"""A node: moatd and a kubelet on it, for the suites that run pods by kubelet's hand.

`Node` starts both and knows what a test asks of them: logs, files of a container's cgroups, kubelet's own
server. Where its pods come from is its user's matter: a directory of manifests (e2e/kubelet), an API server (e2e/cluster).
"""

import json
import os
import re
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import harness
import host
import ociimage

NODE = "node1"
IMAGE = "moat.test/busybox:latest"
ADDRESS = "10.99.0.1"  # on this namespace's loopback interface
SECONDS = float(os.environ.get("MOAT_E2E_SECONDS", 90))  # the most that kubelet may take to do what it was asked

# kubelet sets these for the whole machine; it is shown files that have the values already.
SHIELDED = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
# ... and makes these wherever its --root-dir is.
HIDDEN = ("/var/log/containers", "/var/log/pods", "/var/lib/kubelet")


def configuration(directory, endpoint, more):
    """kubelet's configuration on this machine, without a source of pods."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": False, "cgroupRoot": "/" + harness.cgroup(), "containerRuntimeEndpoint": "unix://" + endpoint,
        "podLogsDir": os.path.join(directory, "podlogs"), "volumePluginDir": os.path.join(directory, "volplugins"),
        "address": ADDRESS, "healthzBindAddress": "127.0.0.1", "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}}, "authorization": {"mode": "AlwaysAllow"},
        "enableControllerAttachDetach": False, "registerNode": False, "failSwapOn": False, "makeIPTablesUtilChains": False,
        "resolvConf": os.path.join(directory, "resolv.conf"), "fileCheckFrequency": "1s", "syncFrequency": "5s",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "containerLogMaxSize": "16Ki", "containerLogMaxFiles": 3, "containerLogMonitorInterval": "3s", **more,
    }


def prepare():
    """With the machine's network and caches at hand: kubelet is built once."""
    os.environ["MOAT_KUBELET"] = harness.script("go-tool.sh", "kubelet")


class Node:
    """One at a time: the ports are kubelet's own. `configuration`: more of KubeletConfiguration."""

    def __init__(self, directory, configuration=None, environment=None):
        self.directory, self.configuration, self.environment = directory, configuration or {}, environment or {}
        self.endpoint = os.path.join(directory, "s")
        for name in ("podlogs", "volplugins", "net.d", "certs"):
            os.mkdir(os.path.join(directory, name))
        with open(os.path.join(directory, "resolv.conf"), "w", encoding="ascii") as out:
            out.write("nameserver 192.0.2.53\n")
        self.kubelet_arguments = []
        self.moatd = self.kubelet = None

    def start(self, images):
        """moatd, `images` ({reference: Image}), kubelet."""
        self.start_moatd()
        self.load(images)
        self.start_kubelet()

    def load(self, images):
        archive = os.path.join(self.directory, "image.tar")
        ociimage.write_archive(archive, images)
        self.moatd_command("image", "load", archive)
        os.unlink(archive)

    def moatd_command(self, *arguments):
        """A command of moatd's beside the one that serves; what it prints."""
        with open(os.path.join(self.directory, "commands.log"), "ab") as log:
            return subprocess.run([os.path.join(harness.BUILD, "moatd"), "--root", self.directory + "/lib", "--state", self.directory + "/run",
                                   *arguments], check=True, stdout=subprocess.PIPE, stderr=log, text=True).stdout

    def start_kubelet(self):
        """The first time, or after it has ended."""
        subprocess.run(["ip", "addr", "replace", ADDRESS + "/32", "dev", "lo"], check=True)
        for path in HIDDEN:
            os.makedirs(path, exist_ok=True)
            if not os.path.ismount(path):
                subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
        with open(os.path.join(self.directory, "kubelet.yaml"), "w", encoding="ascii") as out:
            json.dump(configuration(self.directory, self.endpoint, self.configuration), out)  # JSON is YAML
        shield = ["mount --make-rprivate /proc"]
        for name, value in SHIELDED.items():
            path = os.path.join(self.directory, name.replace("/", "."))
            with open(path, "w", encoding="ascii") as out:
                out.write(value + "\n")
            shield.append(f"mount --bind {path} /proc/sys/{name}")
        # The mounts that kubelet makes have to reach moatd: the namespace stays shared but for /proc.
        self.kubelet = self.spawn("kubelet", [
            "unshare", "--mount", "--propagation", "unchanged", "sh", "-c", " && ".join(shield) + ' && exec "$@"', "kubelet",
            os.environ["MOAT_KUBELET"], "--config=" + os.path.join(self.directory, "kubelet.yaml"), "--root-dir=" + self.directory + "/kubelet",
            "--cert-dir=" + self.directory + "/certs", "--hostname-override=" + NODE, "--node-ip=" + ADDRESS, *self.kubelet_arguments])
        self.wait(lambda: self.get("/healthz") == "ok", "kubelet is healthy")
        self.wait(self.has_qos_groups, "kubelet has made the groups that all its pods are below")
        # It makes none for devices. The runtime makes those for the first pod, and cannot know when the last one is gone.
        for hierarchy in host.hierarchies():
            for name in ("burstable", "besteffort"):
                os.makedirs(os.path.join(hierarchy, harness.cgroup(), "kubepods", name), exist_ok=True)

    @staticmethod
    def has_qos_groups():
        names = [os.path.basename(path) for path in host.cgroups_below(harness.cgroup())]
        return 0 < names.count("kubepods") == names.count("burstable") == names.count("besteffort")

    def start_moatd(self, *arguments):
        self.moatd = self.spawn("moatd", [
            os.path.join(harness.BUILD, "moatd"), "--socket", "unix://" + self.endpoint, "--root", self.directory + "/lib",
            "--state", self.directory + "/run", "--cni-conf-dir", self.directory + "/net.d", *arguments])

    def kill_moatd(self):
        self.moatd.kill()
        self.moatd.wait()

    def stop_kubelet(self):
        self.kubelet.terminate()
        self.kubelet.wait()

    def spawn(self, name, command):
        with open(os.path.join(self.directory, name + ".log"), "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                    env={**os.environ, **self.environment})

    @staticmethod
    def end(process):
        if process and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def stop(self):
        """Ends both. A status other than 0 of moatd is returned, with the end of its log."""
        for process in (self.kubelet, self.moatd):
            self.end(process)
        return self.moatd.returncode

    def log(self, name):
        return self.whole_log(name)[-4000:]

    def whole_log(self, name):
        return host.read(os.path.join(self.directory, name + ".log"))

    def get(self, path, method="GET"):
        """A path of kubelet's own server; its answer, or the text of its refusal."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        try:
            with opener.open(urllib.request.Request(f"https://{ADDRESS}:10250{path}", method=method), timeout=30) as answer:
                return answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def wait(self, condition, what, seconds=SECONDS, every=0.1):
        """Asks `every` so many seconds until `condition` says something true, and returns that."""
        deadline = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > deadline:
                told = what() if callable(what) else what
                raise AssertionError(f"not within {seconds} s: {told}\nkubelet:\n{self.log('kubelet')}\nmoatd:\n{self.log('moatd')}")
            time.sleep(every)

    def cgroup_file(self, container_id, controller, file):
        """A file of a container's cgroup (v1)."""
        container_id = re.sub(r"^.*://", "", container_id)
        for path in host.cgroups_below(harness.cgroup()):
            if f"/{controller}/" in path and os.path.basename(path) == container_id:
                return host.read(os.path.join(path, file)).strip()
        return None

