"""What kubelet takes from a pod that uses too much: local storage above the pod's own limits, and a node under pressure."""

import os
import subprocess

import host
import mkimage
import node
from case import Case, container
from cluster import condition

MIB = 1 << 20


def volume(name, path):
    return {"name": name, "mountPath": path}


def writes(path, mib):
    return f"dd if=/dev/zero of={path} bs=1M count={mib} 2>/dev/null"


def holds(mib):
    """A script that keeps so much memory of its own: tail has read it all, and nobody takes it from tail."""
    return f"head -c {mib + 1}m /dev/zero | tail -c {mib}m | sleep 1000"


def number(quantity):
    """A quantity of the API's in bytes."""
    for suffix, factor in (("Ki", 1 << 10), ("Mi", MIB), ("Gi", 1 << 30)):
        if quantity.endswith(suffix):
            return int(quantity.removesuffix(suffix)) * factor
    return int(quantity)


class EvictionCase(Case):
    def evicted(self, name, *words):
        """Waits until a pod is evicted, with a message that has these words, and nothing of it is left but its object."""
        found = self.wait_ended(name, "Failed")["status"]
        self.assertEqual(found["reason"], "Evicted", found)
        for word in words:
            self.assertIn(word, found["message"])
        self.wait(lambda: [e for e in self.cluster.list("Event") if e["involvedObject"]["name"] == name and e["reason"] == "Evicted"
                           and e["message"] == found["message"]], lambda: f"an event says so: {self.told(self.pod(name))}")
        self.wait(lambda: all("terminated" in c["state"] for c in self.pod(name)["status"].get("containerStatuses", [])),
                  lambda: f"its containers have ended: {self.told(self.pod(name))}")
        return found

    def wait_for_traces(self, uid):
        """Neither mounts nor cgroups nor files of the pod's volumes are left."""
        def traces():
            groups = [g for g in host.cgroups_below(node.harness.cgroup()) if uid in g]
            return groups + [m for m in host.mounts() if uid in m]
        self.wait(lambda: not traces(), lambda: f"nothing of the pod is left: {traces()}")

    def unharmed(self, *names):
        for name in names:
            found = self.pod(name)
            self.assertEqual(condition(found, "Ready"), "True", self.told(found))
            self.assertEqual({c["restartCount"] for c in found["status"]["containerStatuses"]}, {0})


class Limits:
    """Each with a pod beside it that keeps below the same limit."""

    def compare(self, greedy, modest, words, others="400Mi", volumes=(), **main):
        """Two pods that do the same, one to excess. `others`: the limit of the container beside."""
        for name, script in (("modest", modest), ("greedy", greedy)):
            self.start_pod(name, container("main", script + "; touch /tmp/done; exec sleep 1000", **main),
                           container("beside", "exec sleep 1000", resources={"limits": {"ephemeral-storage": others}}), volumes=list(volumes))
        uid = self.pod("greedy")["metadata"]["uid"]
        self.evicted("greedy", words)
        self.wait_for_traces(uid)
        self.in_pod("modest", "until [ -e /tmp/done ]; do usleep 10000; done", "main")
        self.unharmed("modest")

    def test_empty_directory_above_its_limit(self):
        self.compare(writes("/scratch/file", 24), writes("/scratch/file", 16), 'EmptyDir volume "scratch" exceeds the limit "20Mi"',
                     volumes=[{"name": "scratch", "emptyDir": {"sizeLimit": "20Mi"}}], volumeMounts=[volume("scratch", "/scratch")])

    def test_writable_layer_above_the_containers_limit(self):
        self.compare(writes("/file", 24), writes("/file", 16), 'Container main exceeded its local ephemeral storage limit "20Mi"',
                     resources={"limits": {"ephemeral-storage": "20Mi"}})

    def test_writable_layer_deeper_than_a_path(self):
        """What a container hides where no path leads counts too."""
        deep = "n=$(printf %0200d 0); cd /tmp; for i in $(seq 30); do mkdir $n; cd -P $n; done; "
        self.compare(deep + writes("file", 24), deep + writes("file", 16), 'Container main exceeded its local ephemeral storage limit "20Mi"',
                     resources={"limits": {"ephemeral-storage": "20Mi"}})

    def test_log_above_the_containers_limit(self):
        # What is logged without an end is more than the limit even while kubelet rotates it.
        self.compare("while :; do head -c 1m /dev/urandom | base64; usleep 200000; done", "head -c 300k /dev/urandom | base64",
                     'Container main exceeded its local ephemeral storage limit "1Mi"', resources={"limits": {"ephemeral-storage": "1Mi"}})

    def test_all_of_a_pod_above_the_sum_of_its_limits(self):
        """No container is above its own limit, but the volume counts for the pod."""
        self.compare(writes("/scratch/file", 36), writes("/scratch/file", 24), "Pod ephemeral local storage usage exceeds the total limit of containers 30Mi",
                     others="10Mi", volumes=[{"name": "scratch", "emptyDir": {}}], volumeMounts=[volume("scratch", "/scratch")],
                     resources={"limits": {"ephemeral-storage": "20Mi"}})


class OnMoat(Limits, EvictionCase):
    handler = "moat"


class OnNative(Limits, EvictionCase):
    handler = "native"


class Pressure(EvictionCase):
    """kubelet is started again with little of something to give, and as before afterwards. Amounts are those below
    the node's own configuration, so that others on the machine have no part in them."""

    def with_kubelet(self, *arguments, **configuration):
        self.addCleanup(self.as_before)
        self.cluster.restart_kubelet(*arguments, nodeStatusUpdateFrequency="1s", evictionPressureTransitionPeriod="1s", **configuration)
        self.before.expect_process(self.cluster.kubelet.pid)

    def as_before(self):
        self.wait_for_no_pods()
        self.cluster.restart_kubelet()
        self.before.expect_process(self.cluster.kubelet.pid)
        self.wait(self.cluster.is_node_ready, lambda: f"the node is ready: {self.cluster.find('Node', node.NODE)}")

    def wait_for_node(self, what, resource, amount):
        self.wait(lambda: self.cluster.is_node_ready() and number(self.cluster.find("Node", node.NODE)["status"][what][resource]) == amount,
                  lambda: f"the node's {what} of {resource} is {amount}: {self.cluster.find('Node', node.NODE)}")

    def node_has(self, kind, status):
        """Waits for a condition of the node, and for what is to keep pods away while it is so."""
        taint = {"MemoryPressure": "node.kubernetes.io/memory-pressure", "DiskPressure": "node.kubernetes.io/disk-pressure"}[kind]

        def look():
            found = self.cluster.find("Node", node.NODE)
            tainted = taint in [t["key"] for t in found["spec"].get("taints") or []]
            return condition(found, kind) == status and tainted == (status == "True")
        self.wait(look, lambda: f"{kind} is {status}: {self.cluster.find('Node', node.NODE)}")

    def guaranteed(self, script, volume_mounts=(), volumes=()):
        for handler in ("moat", "native"):
            self.handler = handler
            limits = {"cpu": "50m", "memory": "48Mi", "ephemeral-storage": "12Mi"}
            main = container("main", script + "\ntouch /tmp/done; exec sleep 1000", resources={"limits": limits},
                             readinessProbe={"exec": {"command": ["test", "-e", "/tmp/done"]}, "periodSeconds": 1}, volumeMounts=list(volume_mounts))
            found = self.run_pod("guaranteed-" + handler, main, volumes=list(volumes))
            self.assertEqual(found["status"]["qosClass"], "Guaranteed")

    def pressed(self, name, kind, words, *containers, **spec):
        """A pod of best effort that brings the node under pressure, and is what kubelet evicts."""
        self.start_pod(name, *containers, **spec)
        uid = self.pod(name)["metadata"]["uid"]
        self.node_has(kind, "True")
        found = self.evicted(name, *words)
        self.assertEqual(found["qosClass"], "BestEffort")
        target = [c for c in found["conditions"] if c["type"] == "DisruptionTarget"]
        self.assertEqual([(c["status"], c["reason"]) for c in target], [("True", "TerminationByKubelet")])
        self.wait_for_traces(uid)
        self.node_has(kind, "False")
        self.unharmed("guaranteed-moat", "guaranteed-native")

    def test_memory(self):
        """All pods together have 512 MiB, of which 200 are to stay free: the group above them counts, not the machine."""
        reserved = number(self.cluster.find("Node", node.NODE)["status"]["capacity"]["memory"]) - 512 * MIB
        self.with_kubelet(systemReserved={"memory": str(reserved)}, evictionHard={"memory.available": "200Mi"})
        self.wait_for_node("allocatable", "memory", 312 * MIB)
        self.guaranteed(f"({holds(24)}) &")
        words = ("The node was low on resource: memory. ", "Container main was using ", "request is 0, has larger consumption of memory")
        for handler in ("moat", "native"):
            self.handler = handler
            self.pressed("greedy-" + handler, "MemoryPressure", words, container("main", holds(290)))
        # Files of a sandboxed pod's writable layer are memory of the pod's.
        self.handler = "moat"
        self.pressed("files", "MemoryPressure", words, container("main", writes("/file", 290) + "; exec sleep 1000"))

    def swap_root(self, swap):
        """moatd with another --root, while it has no pods."""
        self.wait_for_no_pods()
        self.cluster.end(self.cluster.moatd)
        swap()
        self.cluster.start_moatd()
        self.before.expect_process(self.cluster.moatd.pid)
        self.descriptors = None

    def test_disk_of_images(self):
        """Images, and what native containers write, are on a disk of 96 MiB, of which 48 are to stay free."""
        root = os.path.join(self.cluster.directory, "lib")
        self.addCleanup(self.as_before)  # kubelet looks at its start where the images are
        self.addCleanup(self.swap_root, lambda: os.path.ismount(root) and subprocess.run(["umount", root], check=True))
        self.swap_root(lambda: subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={96 * MIB}", "tmpfs", root], check=True))
        self.cluster.load({node.IMAGE: mkimage.busybox()})
        self.with_kubelet(evictionHard={"imagefs.available": "48Mi", "nodefs.available": "1%", "memory.available": "50Mi"})
        self.wait(self.cluster.is_node_ready, "the node is ready")
        self.guaranteed(writes("/file", 4))
        self.handler = "native"
        words = ("The node was low on resource: ephemeral-storage. Threshold quantity: 48Mi, available: ", "Container main was using ", "request is 0")
        self.pressed("greedy", "DiskPressure", words, container("main", writes("/file", 56) + "; exec sleep 1000"))

    def test_disk_of_volumes(self):
        """kubelet's own files, pods' volumes and logs are on a disk of 64 MiB, of which 32 are to stay free."""
        disk = os.path.join(self.cluster.directory, "small")
        os.mkdir(disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={64 * MIB}", "tmpfs", disk], check=True)
        self.addCleanup(os.rmdir, disk)
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        self.with_kubelet("--root-dir=" + disk + "/kubelet", podLogsDir=disk + "/podlogs", volumeStatsAggPeriod="2s",
                          evictionHard={"nodefs.available": "32Mi", "imagefs.available": "1%", "memory.available": "50Mi"})
        self.wait_for_node("capacity", "ephemeral-storage", 64 * MIB)
        mounts, volumes = [volume("scratch", "/scratch")], [{"name": "scratch", "emptyDir": {}}]
        self.guaranteed(writes("/scratch/file", 4), mounts, volumes)
        for handler in ("moat", "native"):
            self.handler = handler
            self.pressed("greedy-" + handler, "DiskPressure", ["The node was low on resource: ephemeral-storage. Threshold quantity: 32Mi, available: "],
                         container("main", writes("/scratch/file", 36) + "; exec sleep 1000", volumeMounts=mounts), volumes=volumes)
