"""What a pod's specification asks for, by the API: volumes, variables, users, the order of its containers, its end."""

import json
import time

from case import Case, container
from cluster import condition


def volume(name, path, **more):
    return {"name": name, "mountPath": path, **more}


class Pods:
    def test_config_maps_secrets_and_projected_volumes(self):
        self.create("ConfigMap", "settings", data={"color": "blue", "nested.conf": "deep\n"})
        self.create("Secret", "password", stringData={"word": "sesame"}, type="Opaque")
        mounts = [volume("settings", "/settings"), volume("settings", "/etc/nested.conf", subPath="nested.conf"),
                  volume("password", "/password", readOnly=True), volume("all", "/all")]
        downward = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "limit", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory"}}]
        everything = [{"configMap": {"name": "settings", "items": [{"key": "color", "path": "of/color"}]}}, {"secret": {"name": "password"}},
                      {"downwardAPI": {"items": downward}}, {"serviceAccountToken": {"path": "token", "audience": "moat-test", "expirationSeconds": 600}}]
        self.run_pod("configured", container("main", "exec sleep 1000", volumeMounts=mounts, resources={"limits": {"memory": "64Mi"}}),
                     labels={"shape": "round"}, volumes=[
                         {"name": "settings", "configMap": {"name": "settings"}}, {"name": "all", "projected": {"sources": everything}},
                         {"name": "password", "secret": {"secretName": "password", "defaultMode": 0o400}}])
        self.assertEqual(self.in_pod("configured", "cat /settings/color /etc/nested.conf /password/word /all/of/color /all/word /all/limit"),
                         f"bluedeep\nsesamebluesesame{64 << 20}")
        self.assertEqual(self.in_pod("configured", "cat /all/labels"), 'shape="round"')
        self.assertEqual(self.in_pod("configured", "stat -L -c %a /password/word"), "400\n")
        self.assertIn("Read-only", self.in_pod("configured", "echo x 2>&1 > /settings/color || true") + self.in_pod("configured", "(echo x > /password/word) 2>&1 || true"))
        for path, audiences in (("/all/token", ["moat-test"]), ("/var/run/secrets/kubernetes.io/serviceaccount/token", [])):
            token = self.in_pod("configured", "cat " + path)
            review = self.cluster.create({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": audiences}})
            self.assertTrue(review["status"].get("authenticated"), review["status"])
            self.assertEqual(review["status"]["user"]["username"], "system:serviceaccount:default:default")
        self.assertIn("BEGIN CERTIFICATE", self.in_pod("configured", "cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt"))
        self.assertEqual(self.in_pod("configured", "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace"), "default")

    def test_config_map_that_changes_is_seen_inside(self):
        self.create("ConfigMap", "moving", data={"word": "before"})
        self.run_pod("watches", container("main", "exec sleep 1000", volumeMounts=[volume("moving", "/moving")]),
                     volumes=[{"name": "moving", "configMap": {"name": "moving"}}])
        self.assertEqual(self.in_pod("watches", "cat /moving/word"), "before")
        self.cluster.patch("ConfigMap", "moving", {"data": {"word": "after", "more": "yes"}})
        self.wait(lambda: self.in_pod("watches", "cat /moving/word /moving/more 2>/dev/null || true") == "afteryes", "the new words", 150)

    def test_empty_directories_of_both_media_and_sub_paths(self):
        mounts = [volume("disk", "/disk"), volume("memory", "/memory"), volume("disk", "/below", subPath="a/b")]
        reader = [volume("disk", "/disk", readOnly=True), volume("memory", "/memory"),
                  volume("disk", "/of", subPathExpr="$(WHO)")]
        writer = container("writer", "echo disk > /disk/file; echo memory > /memory/file; echo sub > /below/file; exec sleep 1000", volumeMounts=mounts)
        other = container("reader", "exec sleep 1000", volumeMounts=reader,
                          env=[{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}])
        self.run_pod("empty", writer, other, volumes=[
            {"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}])
        self.wait(lambda: self.in_pod("empty", "cat /disk/file /memory/file /disk/a/b/file 2>/dev/null || true", "reader") == "disk\nmemory\nsub\n",
                  "what the neighbour wrote")
        kind = "tmpfs" if self.handler == "native" else "gofer"
        self.assertIn(f" {kind} ", self.in_pod("empty", "grep ' /memory ' /proc/mounts", "reader"))
        self.assertIn("Read-only", self.in_pod("empty", "(touch /disk/no) 2>&1 || true", "reader"))
        self.assertEqual(self.in_pod("empty", "touch /of/mine && ls /disk/empty", "reader"), "mine\n")
        self.assertIn("No space", self.in_pod("empty", "dd if=/dev/zero of=/memory/big bs=1M count=9 2>&1 || true", "reader"))

    def test_variables_from_everywhere(self):
        self.create("ConfigMap", "letters", data={"A": "alpha", "B": "beta"})
        self.create("Secret", "hidden", stringData={"S": "sigma"})
        env = [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
               {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
               {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
               {"name": "NODE_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
               {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
               {"name": "SIGMA", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "S"}}},
               {"name": "BOTH", "value": "$(NAME)-$(SIGMA)"}]
        script = "echo $NAME $NODE $NODE_ADDRESS $LIMIT $BOTH $A $B; echo $ADDRESS; ip -4 addr show eth0; hostname"
        self.start_pod("told", container("main", script, env=env, envFrom=[{"configMapRef": {"name": "letters"}}], resources={"limits": {"cpu": "250m"}}),
                       restartPolicy="Never")
        ended = self.wait_ended("told")
        lines = self.logs("told").splitlines()
        self.assertEqual(lines[0], "told node1 10.99.0.1 250 told-sigma alpha beta")
        self.assertEqual(lines[1], ended["status"]["podIP"])
        self.assertIn(f"inet {lines[1]}/", self.logs("told"))
        self.assertEqual(lines[-1], "told")

    def test_init_containers_and_a_sidecar(self):
        shared = {"volumeMounts": [volume("shared", "/shared")]}
        first = container("first", "echo first >> /shared/order", **shared)
        # Fails once: kubelet starts it again before it goes on.
        second = container("second", "echo second >> /shared/order; [ $(grep -c second /shared/order) = 2 ]", **shared)
        sidecar = container("sidecar", "echo sidecar >> /shared/order; trap 'echo ended >> /shared/order; exit' TERM; while :; do sleep 0.1; done",
                            restartPolicy="Always", startupProbe={"exec": {"command": ["grep", "sidecar", "/shared/order"]}, "periodSeconds": 1}, **shared)
        self.start_pod("order", container("main", "cat /shared/order", **shared), initContainers=[first, second, sidecar],
                       volumes=[{"name": "shared", "emptyDir": {}}], restartPolicy="OnFailure")
        ended = self.wait_ended("order")
        self.assertEqual(self.logs("order", "-c", "main"), "first\nsecond\nsecond\nsidecar\n")
        self.assertEqual([c["restartCount"] for c in ended["status"]["initContainerStatuses"]], [0, 1, 0])

    def test_user_group_and_fs_group(self):
        main = container("main", "exec sleep 1000", volumeMounts=[volume("shared", "/shared")],
                         securityContext={"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}})
        self.run_pod("modest", main, volumes=[{"name": "shared", "emptyDir": {}}],
                     securityContext={"runAsUser": 1000, "runAsGroup": 1001, "runAsNonRoot": True, "fsGroup": 2000, "supplementalGroups": [3000],
                                      "seccompProfile": {"type": "RuntimeDefault"}})
        self.assertEqual(self.in_pod("modest", "id -u; id -g; id -G; touch /shared/file; stat -c '%u %g' /shared/file"), "1000\n1001\n1001 2000 3000\n1000 2000\n")
        self.assertIn("Read-only", self.in_pod("modest", "(touch /file) 2>&1 || true"))
        self.assertIn("CapEff:\t0000000000000000", self.in_pod("modest", "grep CapEff /proc/self/status"))
        user = self.status("modest").get("user", {}).get("linux", {})
        self.assertEqual((user.get("uid"), user.get("gid"), user.get("supplementalGroups")), (1000, 1001, [1001, 2000, 3000]))

    def test_end_with_grace(self):
        """preStop runs first, then TERM; a pod that ends by itself does not wait for its grace period."""
        path = "/shared/order"
        script = f"trap 'echo term >> {path}; exit 0' TERM; while :; do sleep 0.1; done"
        polite = container("main", script, volumeMounts=[volume("shared", "/shared")],
                           lifecycle={"preStop": {"exec": {"command": ["sh", "-c", f"echo stop >> {path}"]}},
                                      "postStart": {"exec": {"command": ["sh", "-c", f"echo start >> {path}"]}}})
        # Told by a neighbour that outlives it: deaf to TERM, it has the whole grace period.
        deaf = container("deaf", f"trap '' TERM; until grep -q term {path}; do sleep 0.1; done; cat {path}; exec sleep 1000",
                         volumeMounts=[volume("shared", "/shared")])
        self.run_pod("ends", polite, deaf, volumes=[{"name": "shared", "emptyDir": {}}], terminationGracePeriodSeconds=8)
        follower = self.cluster.follow("logs", "-f", "ends", "-c", "deaf")
        began = time.monotonic()
        self.kubectl("delete", "pod", "ends", "--timeout=60s")
        took = time.monotonic() - began
        self.assertGreaterEqual(took, 7, "the deaf container's grace period")
        self.assertEqual(follower.communicate(timeout=30)[0], b"start\nstop\nterm\n")

    def test_end_without_grace(self):
        self.run_pod("deaf", container("main", "trap '' TERM; while :; do sleep 0.1; done"), terminationGracePeriodSeconds=600)
        self.kubectl("delete", "pod", "deaf", "--grace-period=1", "--timeout=60s")
        self.run_pod("deaf", container("main", "trap '' TERM; while :; do sleep 0.1; done"), terminationGracePeriodSeconds=600)
        self.kubectl("delete", "pod", "deaf", "--force", "--grace-period=0", "--timeout=60s")

    def test_out_of_memory_is_one_containers_affair(self):
        # The child that eats is not the first process: all of a container ends with it (memory.oom.group is v2's; v1 has the first process's shell see 137).
        greedy = container("greedy", "exec tail /dev/zero", resources={"limits": {"memory": "32Mi"}})
        self.start_pod("oom", container("calm", "exec sleep 1000"), greedy, restartPolicy="Never")
        self.wait(lambda: "terminated" in self.status("oom", "greedy").get("state", {}), lambda: f"greedy has ended: {self.told(self.pod('oom'))}")
        ended = self.status("oom", "greedy")["state"]["terminated"]
        self.assertEqual((ended["reason"], ended["exitCode"]), ("OOMKilled", 137))
        self.assertIn("running", self.status("oom", "calm")["state"])

    def test_resize_in_place(self):
        limits = {"cpu": "200m", "memory": "64Mi"}
        self.run_pod("grows", container("main", "exec sleep 1000", resources={"limits": limits, "requests": {"cpu": "100m", "memory": "32Mi"}}))
        before = self.status("grows")
        self.assertEqual(self.cluster.cgroup_file(before["containerID"], "memory", "memory.limit_in_bytes"), str(64 << 20))
        change = {"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "400m", "memory": "128Mi"}, "requests": {"cpu": "200m", "memory": "64Mi"}}}]}}
        self.kubectl("patch", "pod", "grows", "--subresource", "resize", "--patch", json.dumps(change))
        self.wait(lambda: self.status("grows").get("resources", {}).get("limits", {}) == {"cpu": "400m", "memory": "128Mi"},
                  lambda: f"the new limits: {self.told(self.pod('grows'))}")
        self.assertEqual(self.cluster.cgroup_file(before["containerID"], "memory", "memory.limit_in_bytes"), str(128 << 20))
        self.assertEqual(self.cluster.cgroup_file(before["containerID"], "cpu", "cpu.cfs_quota_us"), "40000")
        after = self.status("grows")
        self.assertEqual((after["containerID"], after["restartCount"]), (before["containerID"], 0))
        # What the pod is told of its own limit follows.
        self.assertEqual(self.in_pod("grows", "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes").strip(), str(128 << 20))

    def test_user_namespace(self):
        """hostUsers: false, with volumes of kubelet's and of the cluster's in it."""
        features = {h["name"]: h["features"] for h in self.cluster.find("Node", "node1")["status"]["runtimeHandlers"]}
        if not features[self.handler]["userNamespaces"]:
            self.skipTest("the node says that this handler has none")
        self.create("ConfigMap", "mapped", data={"word": "mapped"})
        mounts = [volume("memory", "/memory"), volume("disk", "/disk"), volume("config", "/config")]
        main = container("main", "exec sleep 1000", volumeMounts=mounts)
        self.run_pod("mapped", main, hostUsers=False, volumes=[
            {"name": "memory", "emptyDir": {"medium": "Memory"}}, {"name": "disk", "emptyDir": {}}, {"name": "config", "configMap": {"name": "mapped"}}])
        inside, outside, length = self.in_pod("mapped", "cat /proc/self/uid_map").split()
        self.assertEqual((inside, length), ("0", "65536"))
        self.assertGreaterEqual(int(outside), 65536)
        self.assertEqual(self.in_pod("mapped", "id -u; cat /config/word; for d in /memory /disk; do touch $d/f; chown 5:6 $d/f; stat -c '%u %g' $d/f; done"),
                         "0\nmapped5 6\n5 6\n")
        self.assertEqual(self.in_pod("mapped", "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace"), "default")


class OnMoat(Pods, Case):
    handler = "moat"


class OnNative(Pods, Case):
    handler = "native"

    def test_host_network_and_pid(self):
        """What only a native pod can have."""
        self.run_pod("sees", container("main", "exec sleep 1000"), hostNetwork=True, hostPID=True)
        self.assertIn("kubelet", self.in_pod("sees", "ps -o comm"))
        self.assertIn("inet 10.99.0.1/32", self.in_pod("sees", "ip -4 addr show lo"))


class SideBySide(Case):
    def test_both_handlers_on_one_node(self):
        for handler in ("moat", "native"):
            self.handler = handler
            spec = self.template([container("main", f"mkdir -p /www; echo {handler} > /www/index.html; exec httpd -f -p 80 -h /www")])["spec"]
            self.create("Pod", "by-" + handler, spec=spec)
        for handler in ("moat", "native"):
            self.handler = handler
            self.wait_ready("by-" + handler)
            self.assert_kernel("by-" + handler)
        addresses = {h: self.pod("by-" + h)["status"]["podIP"] for h in ("moat", "native")}
        for there, here in (("moat", "native"), ("native", "moat")):
            self.assertEqual(self.in_pod("by-" + here, f"timeout 10 wget -q -O - http://{addresses[there]}/"), there + "\n")

    def test_class_without_a_handler(self):
        """The pod waits, says why, and can be deleted."""
        self.create("RuntimeClass", "nowhere", "node.k8s.io/v1", handler="nowhere")
        self.handler = "nowhere"
        self.start_pod("lost", container("main", "exec sleep 1000"))
        self.wait(lambda: [e for e in self.cluster.list("Event") if e["involvedObject"]["name"] == "lost" and e["reason"] == "FailedCreatePodSandBox"
                           and "nowhere" in e["message"]], lambda: f"an event that names the handler: {self.told(self.pod('lost'))}")

    def test_the_nodes_view_of_its_handlers(self):
        found = self.cluster.find("Node", "node1")
        self.assertEqual(condition(found, "Ready"), "True")
        self.assertTrue(found["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("moat://"))
        features = {h["name"]: h["features"] for h in found["status"]["runtimeHandlers"]}
        self.assertEqual({n for n in features if n}, {"moat", "native"})
        self.assertTrue(features["moat"]["userNamespaces"])
        self.assertEqual(features[""], features["moat"])
        self.assertTrue(found["status"]["features"]["supplementalGroupsPolicy"])
