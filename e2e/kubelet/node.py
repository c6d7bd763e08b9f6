"""A node without a control plane: moatd, and a kubelet that runs the pods of a directory."""

import json
import os
import re
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import harness
import host

NODE = "node1"
IMAGE = "moat.test/busybox:latest"
ADDRESS = "10.99.0.1"  # on this namespace's loopback interface
SECONDS = 90  # the most that kubelet may take to do what it was asked

# kubelet sets these for the whole machine; it is shown files that have the values already.
SHIELDED = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
# ... and makes these wherever its --root-dir is.
HIDDEN = ("/var/log/containers", "/var/log/pods", "/var/lib/kubelet")


def configuration(directory, endpoint):
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": False, "cgroupRoot": "/" + harness.cgroup(), "containerRuntimeEndpoint": "unix://" + endpoint,
        "staticPodPath": os.path.join(directory, "manifests"), "podLogsDir": os.path.join(directory, "podlogs"),
        "volumePluginDir": os.path.join(directory, "volplugins"),
        "address": "127.0.0.1", "healthzBindAddress": "127.0.0.1", "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}}, "authorization": {"mode": "AlwaysAllow"},
        "enableControllerAttachDetach": False, "registerNode": False, "failSwapOn": False, "makeIPTablesUtilChains": False,
        "resolvConf": os.path.join(directory, "resolv.conf"), "fileCheckFrequency": "1s", "syncFrequency": "5s",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "containerLogMaxSize": "16Ki", "containerLogMaxFiles": 3, "containerLogMonitorInterval": "3s",
    }


class Node:
    def __init__(self, directory):
        self.directory = directory
        self.endpoint = os.path.join(directory, "s")
        self.manifests = os.path.join(directory, "manifests")
        for name in ("manifests", "podlogs", "volplugins", "net.d", "certs"):
            os.mkdir(os.path.join(directory, name))
        with open(os.path.join(directory, "resolv.conf"), "w", encoding="ascii") as out:
            out.write("nameserver 192.0.2.53\n")
        self.moatd = self.kubelet = None

    def start(self):
        subprocess.run(["ip", "addr", "replace", ADDRESS + "/32", "dev", "lo"], check=True)
        for path in HIDDEN:
            os.makedirs(path, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
        self.start_moatd()
        archive = os.path.join(self.directory, "image.tar")
        subprocess.run([os.path.join(harness.IMAGES, "mkimage.py"), "archive", "busybox", archive, "--ref", IMAGE], check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run([os.path.join(harness.BUILD, "moatd"), "--root", self.directory + "/lib", "--state", self.directory + "/run",
                        "image", "load", archive], check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(self.directory, "kubelet.yaml"), "w", encoding="ascii") as out:
            json.dump(configuration(self.directory, self.endpoint), out)  # JSON is YAML
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
            "--cert-dir=" + self.directory + "/certs", "--hostname-override=" + NODE, "--node-ip=" + ADDRESS])
        self.wait(lambda: self.get("/healthz") == "ok", "kubelet is healthy")

    def start_moatd(self):
        self.moatd = self.spawn("moatd", [
            os.path.join(harness.BUILD, "moatd"), "--socket", "unix://" + self.endpoint, "--root", self.directory + "/lib",
            "--state", self.directory + "/run", "--cni-conf-dir", self.directory + "/net.d"])

    def kill_moatd(self):
        self.moatd.kill()
        self.moatd.wait()

    def spawn(self, name, command):
        with open(os.path.join(self.directory, name + ".log"), "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def stop(self):
        """Ends both. A status other than 0 of moatd is returned, with the end of its log."""
        for process in (self.kubelet, self.moatd):
            if process and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        return self.moatd.returncode

    def log(self, name):
        return host.read(os.path.join(self.directory, name + ".log"))[-4000:]

    def get(self, path, method="GET"):
        """A path of kubelet's own server; its answer, or the text of its refusal."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        try:
            with opener.open(urllib.request.Request("https://127.0.0.1:10250" + path, method=method), timeout=30) as answer:
                return answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def wait(self, condition, what, seconds=SECONDS):
        deadline = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > deadline:
                told = what() if callable(what) else what
                raise AssertionError(f"not within {seconds} s: {told}\nkubelet:\n{self.log('kubelet')}\nmoatd:\n{self.log('moatd')}")
            time.sleep(0.1)

    # Pods. Names are those of the manifests; kubelet appends the node's.
    def apply(self, name, spec, **metadata):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", **metadata},
               "spec": {"terminationGracePeriodSeconds": 1, **spec}}
        temporary = os.path.join(self.directory, name + ".json")
        with open(temporary, "w", encoding="ascii") as out:
            json.dump(pod, out)
        os.rename(temporary, os.path.join(self.manifests, name + ".json"))

    def remove(self, name):
        os.unlink(os.path.join(self.manifests, name + ".json"))
        self.wait(lambda: self.pod(name) is None, f"pod {name} is gone")

    def pod(self, name):
        try:
            pods = json.loads(self.get("/pods"))["items"] or []
        except ValueError:
            return {}
        return next((p for p in pods if p["metadata"]["name"] == f"{name}-{NODE}"), None)

    def container(self, name, container):
        """The status of a container, an init container's too; {} while there is none."""
        status = (self.pod(name) or {}).get("status", {})
        every = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
        return next((c for c in every if c["name"] == container), {})

    def ready(self, name):
        conditions = (self.pod(name) or {}).get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def logs(self, name, container, query=""):
        return self.get(f"/containerLogs/default/{name}-{NODE}/{container}{query}")

    def run(self, name, container, *command):
        """Runs a command in a container by kubelet's own server and returns its output."""
        query = urllib.parse.urlencode({"cmd": " ".join(command)})
        return self.get(f"/run/default/{name}-{NODE}/{container}?{query}", method="POST")

    def cgroup_file(self, container_id, controller, file):
        """A file of a container's cgroup (v1)."""
        container_id = re.sub(r"^.*://", "", container_id)
        for path in host.cgroups_below(harness.cgroup()):
            if f"/{controller}/" in path and os.path.basename(path) == container_id:
                return host.read(os.path.join(path, file)).strip()
        return None


def container(name, script, **more):
    return {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script], **more}
