"""Limits that change, limits that are exceeded, and figures; asked by kubelet."""

import json
import re
import uuid

from case import PodCase
from node import NODE
from static_node import container

MIB = 1 << 20


def limits(cpu, memory):
    return {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": cpu, "memory": memory}}


class Resize(PodCase):
    """kubelet 1.37 resizes a static pod in place when its manifest keeps the pod's uid."""

    def apply_with(self, name, uid, *containers):
        self.apply(name, {"containers": list(containers)}, uid=uid)

    def cgroup(self, name, container_name, controller, file):
        return self.node.cgroup_file(self.node.container(name, container_name)["containerID"], controller, file)

    def wait_limits(self, name, container_name, cpu, memory):
        def look():
            found = self.node.container(name, container_name)
            return found if found.get("resources", {}).get("limits") == {"cpu": cpu, "memory": memory} else None

        return self.node.wait(look, lambda: f"{container_name} has {cpu} {memory}: {self.node.pod(name)}")

    def test_limits_change_while_the_container_runs(self):
        uid = str(uuid.uuid4())

        def containers(cpu, memory):
            sees = "while :; do cat /sys/fs/cgroup/memory.max > /tmp/limit; usleep 200000; done"
            return (container("live", sees, resources=limits(cpu, memory)),
                    container("again", "exec sleep 1000", resources=limits(cpu, memory),
                              resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}, {"resourceName": "memory", "restartPolicy": "RestartContainer"}]),
                    container("other", "exec sleep 1000"))

        self.apply_with("resize", uid, *containers("300m", "64Mi"))
        self.wait_ready("resize")
        before = {name: self.node.container("resize", name)["containerID"] for name in ("live", "again", "other")}
        self.assertEqual(self.cgroup("resize", "live", "memory", "memory.limit_in_bytes"), str(64 * MIB))
        self.assertEqual(self.cgroup("resize", "live", "cpu", "cpu.cfs_quota_us"), "30000")

        self.node.apply("resize", {"containers": list(containers("500m", "96Mi"))}, uid=uid)
        self.wait_limits("resize", "live", "500m", "96Mi")
        self.wait_limits("resize", "again", "500m", "96Mi")
        self.wait_restarted("resize", "again")
        self.assertEqual(self.cgroup("resize", "live", "memory", "memory.limit_in_bytes"), str(96 * MIB))
        self.assertEqual(self.cgroup("resize", "live", "cpu", "cpu.cfs_quota_us"), "50000")
        self.node.wait(lambda: self.node.run("resize", "live", "cat", "/tmp/limit").strip() == str(96 * MIB), "the new limit inside")
        after = {name: self.node.container("resize", name)["containerID"] for name in before}
        self.assertEqual((after["live"], after["other"]), (before["live"], before["other"]))
        self.assertNotEqual(after["again"], before["again"])
        self.assertEqual(self.cgroup("resize", "again", "memory", "memory.limit_in_bytes"), str(96 * MIB))

        self.node.apply("resize", {"containers": list(containers("500m", "48Mi"))}, uid=uid)  # and down again
        self.wait_limits("resize", "live", "500m", "48Mi")
        self.assertEqual(self.cgroup("resize", "live", "memory", "memory.limit_in_bytes"), str(48 * MIB))
        self.assertEqual(self.node.container("resize", "live")["containerID"], before["live"])
        self.assertEqual(self.node.container("resize", "live")["restartCount"], 0)

    def test_what_the_node_has_not_is_refused(self):
        uid = str(uuid.uuid4())
        self.apply_with("greedy", uid, container("main", "exec sleep 1000", resources=limits("100m", "32Mi")))
        self.wait_ready("greedy")
        too_much = {"requests": {"cpu": "1000", "memory": "16Mi"}, "limits": {"cpu": "1000", "memory": "32Mi"}}
        self.node.apply("greedy", {"containers": [container("main", "exec sleep 1000", resources=too_much)]}, uid=uid)

        def pending():
            conditions = (self.node.pod("greedy") or {}).get("status", {}).get("conditions", [])
            return next((c for c in conditions if c["type"] == "PodResizePending"), None)

        refused = self.node.wait(pending, lambda: f"an answer: {self.node.pod('greedy')}")
        self.assertRegex(refused["message"], "(?i)cpu")
        self.assertEqual(self.cgroup("greedy", "main", "cpu", "cpu.cfs_quota_us"), "10000")
        self.assertEqual(self.node.container("greedy", "main")["restartCount"], 0)


class Exceeded(PodCase):
    """kubelet counts static pods as critical: it decides to evict them, by moatd's figures, and then does not."""

    def decided(self, name):
        return f'cannot evict a critical pod" pod="default/{name}-{NODE}"' in self.node.whole_log("kubelet")

    def wait_decided(self, name):
        self.node.wait(lambda: self.decided(name), lambda: f"kubelet would evict {name}: {self.node.get('/stats/summary')}")

    def not_decided(self, name):
        """In the same turn as that of a pod which was waited for, or in an earlier one."""
        self.assertFalse(self.decided(name), self.node.get("/stats/summary"))

    def test_out_of_memory_is_told_of_the_one_container(self):
        greedy = container("greedy", "exec dd if=/dev/zero of=/dev/null bs=200M", resources={"limits": {"memory": "32Mi"}})
        self.apply("oom", {"restartPolicy": "Never", "containers": [container("calm", "exec sleep 1000"), greedy]})
        found = self.node.wait(lambda: self.node.container("oom", "greedy").get("state", {}).get("terminated"),
                               lambda: f"greedy has ended: {self.node.container('oom', 'greedy')}")
        self.assertEqual(found["reason"], "OOMKilled")
        self.assertIn("running", self.node.container("oom", "calm")["state"])

    def test_writable_layer_beyond_its_limit(self):
        writes = container("writes", "dd if=/dev/zero of=/file bs=1M count=4; exec sleep 1000", resources={"limits": {"ephemeral-storage": "2Mi"}})
        fits = container("fits", "dd if=/dev/zero of=/file bs=1M count=1; exec sleep 1000", resources={"limits": {"ephemeral-storage": "2Mi"}})
        self.apply("fits", {"containers": [fits]})
        self.apply("layer", {"containers": [writes, container("calm", "exec sleep 1000")]})
        self.wait_decided("layer")
        self.not_decided("fits")

    def test_logs_beyond_the_limit(self):
        writes = container("writes", "dd if=/dev/urandom bs=1k count=64 | base64; exec sleep 1000", resources={"limits": {"ephemeral-storage": "32Ki"}})
        self.apply("quiet", {"containers": [container("main", "exec sleep 1000", resources={"limits": {"ephemeral-storage": "32Ki"}})]})
        self.apply("talks", {"containers": [writes]})
        self.wait_decided("talks")
        self.not_decided("quiet")

    def test_empty_dir_beyond_its_size(self):
        writes = container("writes", "dd if=/dev/zero of=/data/file bs=1M count=4; exec sleep 1000", volumeMounts=[{"name": "data", "mountPath": "/data"}])
        self.apply("volume", {"containers": [writes], "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "2Mi"}}]})
        self.wait_decided("volume")


class Figures(PodCase):
    def test_summary_has_what_evictions_are_decided_by(self):
        busy = container("busy", "dd if=/dev/zero of=/file bs=1M count=3; echo talks; dd if=/dev/urandom of=/data/file bs=1M count=2; while :; do :; done",
                         volumeMounts=[{"name": "data", "mountPath": "/data"}], resources={"limits": {"cpu": "100m", "memory": "64Mi"}})
        self.apply("figures", {"containers": [busy, container("calm", "exec sleep 1000")], "volumes": [{"name": "data", "emptyDir": {}}]})
        self.wait_ready("figures")

        def summary():
            pods = json.loads(self.node.get("/stats/summary") or "{}").get("pods") or []
            pod = next((p for p in pods if p["podRef"]["name"] == f"figures-{NODE}"), None)
            busy = next((c for c in (pod or {}).get("containers", []) if c["name"] == "busy"), {})
            volume = next((v for v in (pod or {}).get("volume", []) if v["name"] == "data"), {})
            # Each comes from another loop of kubelet's, which has its own period.
            full = (busy.get("rootfs", {}).get("usedBytes", 0) >= 3 * MIB and busy.get("cpu", {}).get("usageNanoCores")
                    and volume.get("usedBytes", 0) >= 2 * MIB and pod.get("memory", {}).get("workingSetBytes"))
            return pod if full else None

        pod = self.node.wait(summary, lambda: f"figures of the pod: {self.node.get('/stats/summary')}")
        containers = {c["name"]: c for c in pod["containers"]}
        self.assertEqual(set(containers), {"busy", "calm"})
        for figures in containers.values():
            self.assertGreater(figures["memory"]["workingSetBytes"], 0)
            for place in ("rootfs", "logs"):
                self.assertGreater(figures[place]["capacityBytes"], figures[place]["availableBytes"])
        self.assertGreater(containers["busy"]["cpu"]["usageCoreNanoSeconds"], containers["calm"]["cpu"]["usageCoreNanoSeconds"])
        self.assertLess(containers["busy"]["rootfs"]["usedBytes"], 8 * MIB)
        self.assertLess(containers["calm"]["rootfs"]["usedBytes"], MIB)
        self.assertGreater(containers["busy"]["logs"]["usedBytes"], 0)
        self.assertGreaterEqual(pod["ephemeral-storage"]["usedBytes"], 5 * MIB)
        self.assertGreater(pod["memory"]["workingSetBytes"], containers["busy"]["memory"]["workingSetBytes"])
        node = json.loads(self.node.get("/stats/summary"))["node"]
        for place in (node["fs"], node["runtime"]["imageFs"], node["runtime"]["containerFs"]):
            self.assertGreater(place["capacityBytes"], place["availableBytes"])
            self.assertGreater(place["inodesFree"], 0)
        self.assertGreater(node["runtime"]["imageFs"]["usedBytes"], MIB)  # the image

    def test_cadvisor_sees_the_containers_cgroups(self):
        self.apply("seen", {"containers": [container("main", "exec sleep 1000", resources={"limits": {"memory": "64Mi"}})]})
        self.wait_ready("seen")
        container_id = re.sub("^.*://", "", self.node.container("seen", "main")["containerID"])

        def figures():
            found = dict(re.findall(r'^(container_\w+)\{[^}]*id="[^"]*/%s"[^}]*\} (\S+)' % container_id, self.node.get("/metrics/cadvisor"), re.M))
            return found if float(found.get("container_memory_working_set_bytes", 0)) > 0 else None

        found = self.node.wait(figures, "the container in /metrics/cadvisor")
        self.assertEqual(float(found["container_spec_memory_limit_bytes"]), 64 * MIB)
        self.assertIn("container_cpu_usage_seconds_total", found)
