"""A node without a control plane: kubelet runs the pods of a directory."""

import contextlib
import json
import os
import tempfile
import threading
import urllib.parse

import harness
import mkimage
import ociimage
from node import IMAGE, NODE, Node

GRPC_IMAGE = "moat.test/grpc-health:latest"  # busybox, and a server for gRPC probes


class StaticNode(Node):
    def __init__(self, directory, configuration=None, environment=None):
        self.manifests = os.path.join(directory, "manifests")
        os.mkdir(self.manifests)
        super().__init__(directory, {
            "staticPodPath": self.manifests, "volumeStatsAggPeriod": "2s", "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
            **(configuration or {})}, environment)

    # Pods. Names are those of the manifests; kubelet appends the node's.
    def apply(self, name, spec, **metadata):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", **metadata},
               "spec": {"terminationGracePeriodSeconds": 1, **spec}}
        temporary = os.path.join(self.directory, name + ".json")
        with open(temporary, "w", encoding="ascii") as out:
            json.dump(pod, out)
        os.rename(temporary, os.path.join(self.manifests, name + ".json"))

    def forget(self, name):
        """Takes a pod's manifest away."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.manifests, name + ".json"))

    def remove(self, name):
        self.forget(name)
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


_shared = None
_sharing = threading.Lock()


def images():
    """What the pods of tests are made of."""
    with open(os.environ["MOAT_GRPC_HEALTH"], "rb") as program:
        grpc = mkimage.busybox([[ociimage.file("bin/grpc-health", program.read(), 0o755)]])
    return {IMAGE: mkimage.busybox(), GRPC_IMAGE: grpc}


def shared():
    """The node of all tests that need none of their own."""
    global _shared
    with _sharing:
        if not _shared:
            node = StaticNode(tempfile.mkdtemp(dir=harness.scratch()), {"featureGates": {"ContainerStopSignals": True}})
            node.start(images())
            _shared = node
        return _shared


def stop_shared():
    """Ends the shared node, if there is one; says what was wrong with it."""
    global _shared
    with _sharing:
        node, _shared = _shared, None
        status = node.stop() if node else 0
        return f"moatd's exit status {status}; its log:\n{node.log('moatd')}" if status else ""


def container(name, script, **more):
    return {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script], **more}
