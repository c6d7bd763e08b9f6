"""What the tests of the cluster have in common: objects that go with their test, pods, leaks."""

import time

import harness
import host
from cluster import condition
from node import IMAGE, SECONDS

_cluster = None  # the one that all tests share


def use(cluster):
    global _cluster
    _cluster = cluster


def container(name, script, **more):
    return {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script], **more}


def web(text, port=80):
    """A container that serves `text` at /, and is ready when it does."""
    return container("web", f"mkdir -p /www; echo {text} > /www/index.html; exec httpd -f -p {port} -h /www",
                     readinessProbe={"httpGet": {"path": "/", "port": port}, "periodSeconds": 1})


class Case(harness.Case):
    """A test whose objects are deleted with it, and which then leaves nothing, no descriptor of moatd's either."""

    leak_seconds = 60  # kubelet cleans up when it comes by
    handler = "moat"

    def setUp(self):
        self.cluster = _cluster
        super().setUp()
        self.descriptors = host.open_descriptors(self.cluster.moatd.pid)
        self.addCleanup(self.check_descriptors)
        self.addCleanup(self.wait_for_no_pods)

    def wait_for_no_pods(self):
        for pod in self.cluster.list("Pod"):  # those without an owner, made by kubectl
            if not pod["metadata"].get("deletionTimestamp"):
                self.cluster.delete("Pod", pod["metadata"]["name"], grace=1)
        self.wait(lambda: not self.cluster.list("Pod"), lambda: f"all pods are gone: {self.told(*self.cluster.list('Pod'))}")

    def check_descriptors(self):
        if self.descriptors is None:  # another moatd than before
            return
        deadline = time.monotonic() + 30
        while True:
            now = host.open_descriptors(self.cluster.moatd.pid)
            if len(now) <= len(self.descriptors) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        self.assertLessEqual(len(now), len(self.descriptors), f"moatd's descriptors, before: {sorted(self.descriptors.values())}, "
                             f"now: {sorted(now.values())}")

    def wait(self, look, what, seconds=SECONDS):
        return self.cluster.wait(look, what, seconds)

    def kubectl(self, *arguments, **more):
        return self.cluster.kubectl(*arguments, **more).decode("utf-8", "replace")

    # Objects.
    def create(self, kind, name, api="v1", labels=None, **fields):
        made = self.cluster.create({"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": labels or {}}, **fields})
        self.addCleanup(self.remove, kind, name)
        return made

    def remove(self, kind, name):
        self.cluster.delete(kind, name, grace=1 if kind == "Pod" else None)
        self.wait(lambda: self.cluster.find(kind, name) is None, f"{kind} {name} is gone")

    def template(self, containers, labels=None, **spec):
        """A pod's metadata and specification, as those want them who make pods."""
        return {"metadata": {"labels": labels or {}},
                "spec": {"runtimeClassName": self.handler, "terminationGracePeriodSeconds": 1, "containers": containers, **spec}}

    def start_pod(self, name, *containers, labels=None, **spec):
        return self.create("Pod", name, labels=labels, spec=self.template(list(containers), **spec)["spec"])

    def run_pod(self, name, *containers, labels=None, **spec):
        """A pod that is ready. Returns it."""
        self.start_pod(name, *containers, labels=labels, **spec)
        return self.wait_ready(name)

    def wait_ready(self, name):
        self.wait(lambda: condition(self.pod(name), "Ready") == "True", lambda: f"{name} is ready: {self.told(self.pod(name))}")
        return self.pod(name)

    def wait_ended(self, name, phase="Succeeded"):
        found = self.wait(lambda: self.pod(name).get("status", {}).get("phase") in ("Succeeded", "Failed") and self.pod(name),
                          lambda: f"{name} has ended: {self.told(self.pod(name))}")
        self.assertEqual(found["status"]["phase"], phase, self.told(found))
        return found

    def pod(self, name):
        return self.cluster.find("Pod", name) or {}

    def status(self, name, container="main", kind="containerStatuses"):
        """The status of a pod's container; {} while there is none."""
        return next((c for c in self.pod(name).get("status", {}).get(kind) or [] if c["name"] == container), {})

    def pods_of(self, selector):
        return [p for p in self.cluster.list("Pod", selector) if not p["metadata"].get("deletionTimestamp")]

    def logs(self, name, *more):
        return self.kubectl("logs", name, *more)

    def in_pod(self, name, script, container=None):
        """What a shell in a container prints."""
        return self.kubectl("exec", name, *(["-c", container] if container else []), "--", "sh", "-c", script)

    def told(self, *pods):
        """What there is to say of pods that are not as they should be."""
        lines = []
        for pod in pods:
            if pod:
                name = pod["metadata"]["name"]
                events = [e["message"] for e in self.cluster.list("Event") if e["involvedObject"]["name"] == name]
                lines.append(f"{name}: {pod['status']} events: {events[-8:]}")
        return "\n".join(lines) or "there is none"

    def assert_kernel(self, name, container=None):
        """The pod runs where its class says: in the sandbox, or on the node's kernel."""
        check = self.assertNotIn if self.handler == "native" else self.assertIn
        check("moat", self.in_pod(name, "cat /proc/version", container).lower())


def warm_up():
    """A pod of each handler comes and goes: what moatd makes once and keeps is not counted as a test's."""
    for handler in ("moat", "native"):
        name = "warm-" + handler
        _cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "runtimeClassName": handler, "terminationGracePeriodSeconds": 1, "containers": [container("main", "exec sleep 1000")]}})
        _cluster.wait(lambda: condition(_cluster.find("Pod", name), "Ready") == "True", lambda: f"{name} is ready: {_cluster.find('Pod', name)['status']}")
        _cluster.kubectl("logs", name)
        _cluster.delete("Pod", name, grace=1)
        _cluster.wait(lambda: _cluster.find("Pod", name) is None, f"{name} is gone")
