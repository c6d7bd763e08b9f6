"""moatd and kubelet come and go, pods stay. Each test has the node for itself."""

from case import PodCase
from static_node import container


class Restarts(PodCase):
    alone = True

    def test_moatd_killed_and_restarted(self):
        self.apply("stays", {"containers": [container("main", "echo begun; exec sleep 1000")]})
        self.wait_ready("stays")
        before = self.node.container("stays", "main")["containerID"]
        self.node.kill_moatd()
        self.node.start_moatd()
        self.before.expect_process(self.node.moatd.pid)
        self.node.wait(lambda: "begun" in self.node.run("stays", "main", "echo", "begun"), "an exec by the new moatd")
        self.assertEqual(self.node.container("stays", "main")["containerID"], before)
        self.assertEqual(self.node.container("stays", "main")["restartCount"], 0)

    def test_kubelet_restarted(self):
        volume, mount = self.in_directory()
        probe = {"exec": {"command": ["sh", "-c", "echo x >> /gate/probed"]}, "periodSeconds": 1}
        sidecar = container("sidecar", "exec sleep 1000", restartPolicy="Always")
        self.apply("stays", {"volumes": [volume], "initContainers": [container("init", "echo x >> /gate/init", volumeMounts=[mount]), sidecar],
                             "containers": [container("main", "echo begun; exec sleep 1000", livenessProbe=probe, volumeMounts=[mount])]})
        self.apply("goes", {"containers": [container("main", "exec sleep 1000")]})
        self.wait_ready("stays")
        self.wait_ready("goes")
        before = {name: self.node.container("stays", name)["containerID"] for name in ("main", "sidecar")}
        self.node.stop_kubelet()
        self.node.forget("goes")  # while nobody looks
        probed = len(self.lines("probed"))
        self.node.start_kubelet()
        self.before.expect_process(self.node.kubelet.pid)
        self.wait_ready("stays")
        self.node.wait(lambda: len(self.lines("probed")) > probed, "probes go on")
        self.assertEqual({name: self.node.container("stays", name)["containerID"] for name in before}, before)
        self.assertEqual(self.node.container("stays", "main")["restartCount"], 0)
        self.assertEqual(self.lines("init"), ["x"])
        self.assertEqual(self.node.logs("stays", "main"), "begun\n")
        self.node.wait(lambda: "goes-node1" not in self.node.get("/runningpods/"), lambda: f"what was forgotten is gone: {self.node.get('/runningpods/')}")

    def test_native_pods_beside_sandboxed_ones(self):
        """A kubelet without an apiserver knows no RuntimeClass: it is moatd whose default changes."""
        self.apply("boxed", {"containers": [container("main", "exec sleep 1000")]})
        self.wait_ready("boxed")
        boxed = self.node.container("boxed", "main")["containerID"]
        self.addCleanup(self.restart_moatd)
        self.restart_moatd("--default-handler", "native")
        probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
        main = container("main", "mkdir /www; echo native > /www/index.html; echo up; exec httpd -f -p 8080 -h /www", readinessProbe=probe,
                         resources={"limits": {"memory": "64Mi"}})
        self.apply("native", {"containers": [main, container("side", "wget -q -O - http://127.0.0.1:8080/; exec sleep 1000", livenessProbe={
            "exec": {"command": ["true"]}, "periodSeconds": 1})]})
        self.wait_ready("native")
        self.assertNotIn("moat", self.node.run("native", "main", "cat", "/proc/version").lower())
        self.assertIn("moat", self.node.run("boxed", "main", "cat", "/proc/version").lower())
        self.assertEqual(self.node.logs("native", "main"), "up\n")
        self.assertEqual(self.node.cgroup_file(self.node.container("native", "main")["containerID"], "memory", "memory.limit_in_bytes"), str(64 << 20))
        self.assertEqual(self.node.container("boxed", "main")["containerID"], boxed)
        self.assertEqual(self.node.container("boxed", "main")["restartCount"], 0)

    def restart_moatd(self, *arguments):
        self.node.kill_moatd()
        self.node.start_moatd(*arguments)
        self.before.expect_process(self.node.moatd.pid)
