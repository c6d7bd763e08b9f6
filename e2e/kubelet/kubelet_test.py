"""What kubelet asks of a runtime, asked by kubelet itself: static pods on moatd."""

import os
import tempfile

import harness
import mkimage
from static_node import IMAGE, StaticNode, container

node = None


def setUpModule():
    global node
    node = StaticNode(tempfile.mkdtemp(dir=harness.scratch()))
    node.start({IMAGE: mkimage.busybox()})


def tearDownModule():
    status = node.stop()
    assert status == 0, f"moatd's exit status {status}; its log:\n{node.log('moatd')}"


class Kubelet(harness.Case):
    leak_seconds = 60  # kubelet cleans up when it comes by

    def apply(self, name, spec, **metadata):
        node.apply(name, spec, **metadata)
        self.addCleanup(node.remove, name)

    def wait_for_reason(self, name, container_name, state, **wanted):
        """Waits until a container is in a state whose fields are as wanted."""

        def look():
            found = node.container(name, container_name)
            for where in (found.get("state", {}), found.get("lastState", {})):
                if all(where.get(state, {}).get(k) == v for k, v in wanted.items()) and state in where:
                    return found
            return None

        return node.wait(look, lambda: f"{container_name} is {state} with {wanted}: {node.container(name, container_name)}")

    def test_pod_of_two_containers_with_limits_probes_and_volumes(self):
        probe = {"exec": {"command": ["cat", "/shared/ready"]}, "periodSeconds": 1}
        web = container(
            "web", "mkdir -p /www && echo hello > /www/index.html && echo up && touch /shared/ready && exec httpd -f -p 8080 -h /www",
            readinessProbe={"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1},
            livenessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1}, startupProbe=probe,
            resources={"limits": {"cpu": "500m", "memory": "64Mi"}},
            volumeMounts=[{"name": "shared", "mountPath": "/shared"}, {"name": "memory", "mountPath": "/memory"}])
        side = container(
            "side", "until [ -e /shared/ready ]; do usleep 10000; done; wget -q -O - http://127.0.0.1:8080/; mount | grep ' /memory '; exec sleep 1000",
            volumeMounts=[{"name": "shared", "mountPath": "/shared", "readOnly": True}, {"name": "memory", "mountPath": "/memory"}])
        volumes = [{"name": "shared", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}]
        self.apply("two", {"containers": [web, side], "volumes": volumes})
        node.wait(lambda: node.ready("two"), lambda: f"two is ready: {node.pod('two')}")
        self.assertIn("hello", node.wait(lambda: node.logs("two", "side"), "the neighbour's log"))
        self.assertEqual(node.logs("two", "web"), "up\n")
        limit = node.cgroup_file(node.container("two", "web")["containerID"], "memory", "memory.limit_in_bytes")
        self.assertEqual(limit, str(64 << 20))
        self.assertIn("moat", node.run("two", "web", "cat", "/proc/version").lower())

    def test_init_containers_run_in_order_and_a_sidecar_stays(self):
        first = container("first", "echo first >> /shared/order", volumeMounts=[{"name": "shared", "mountPath": "/shared"}])
        sidecar = container("sidecar", "echo sidecar >> /shared/order; exec sleep 1000", restartPolicy="Always",
                            volumeMounts=[{"name": "shared", "mountPath": "/shared"}])
        second = container("second", "until grep -q sidecar /shared/order; do usleep 10000; done; echo second >> /shared/order",
                           volumeMounts=[{"name": "shared", "mountPath": "/shared"}])
        main = container("main", "cat /shared/order; exec sleep 1000", volumeMounts=[{"name": "shared", "mountPath": "/shared"}])
        self.apply("order", {"initContainers": [first, sidecar, second], "containers": [main], "volumes": [{"name": "shared", "emptyDir": {}}]})
        node.wait(lambda: node.ready("order"), lambda: f"order is ready: {node.pod('order')}")
        self.assertEqual(node.wait(lambda: node.logs("order", "main"), "main's log"), "first\nsidecar\nsecond\n")
        self.assertIn("running", node.container("order", "sidecar")["state"])

    def test_exit_codes_and_restarts(self):
        self.apply("fails", {"restartPolicy": "OnFailure", "containers": [container("main", "exit 7"), container("done", "exit 0")]})
        self.wait_for_reason("fails", "done", "terminated", reason="Completed", exitCode=0)
        node.wait(lambda: node.container("fails", "main").get("restartCount", 0) >= 1, "the failing container is started again")
        self.wait_for_reason("fails", "main", "terminated", reason="Error", exitCode=7)
        self.assertEqual(node.container("fails", "done")["restartCount"], 0)

    def test_liveness_probe_restarts(self):
        probe = {"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1, "failureThreshold": 1}
        self.apply("sick", {"containers": [container("main", "usleep 500000; touch /tmp/sick; exec sleep 1000", livenessProbe=probe)]})
        node.wait(lambda: node.container("sick", "main").get("restartCount", 0) >= 1, lambda: f"a restart: {node.container('sick', 'main')}")

    def test_out_of_memory_is_told_of_the_one_container(self):
        greedy = container("greedy", "exec dd if=/dev/zero of=/dev/null bs=200M", resources={"limits": {"memory": "32Mi"}})
        self.apply("oom", {"restartPolicy": "Never", "containers": [container("calm", "exec sleep 1000"), greedy]})
        found = node.wait(lambda: node.container("oom", "greedy").get("state", {}).get("terminated"),
                          lambda: f"greedy has ended: {node.container('oom', 'greedy')}")
        self.assertEqual(found["reason"], "OOMKilled")
        self.assertIn("running", node.container("oom", "calm")["state"])

    def test_moatd_killed_and_restarted(self):
        self.apply("stays", {"containers": [container("main", "echo begun; exec sleep 1000")]})
        node.wait(lambda: node.ready("stays"), "stays is ready")
        before = node.container("stays", "main")["containerID"]
        node.kill_moatd()
        node.start_moatd()
        self.before.expect_process(node.moatd.pid)
        node.wait(lambda: "begun" in node.run("stays", "main", "echo", "begun"), "an exec by the new moatd")
        self.assertEqual(node.container("stays", "main")["containerID"], before)
        self.assertEqual(node.container("stays", "main")["restartCount"], 0)

    def test_host_path_sub_path_and_termination_message(self):
        path = os.path.join(node.directory, "host")
        os.makedirs(os.path.join(path, "below"), exist_ok=True)
        main = container("main", "echo from-guest > /host/file; cat /sub/*; echo goodbye > /dev/termination-log; exit 3",
                         volumeMounts=[{"name": "host", "mountPath": "/host"}, {"name": "host", "mountPath": "/sub", "subPath": "below"}])
        with open(os.path.join(path, "below", "given"), "w", encoding="ascii") as out:
            out.write("from-host\n")
        self.apply("paths", {"restartPolicy": "Never", "containers": [main], "volumes": [{"name": "host", "hostPath": {"path": path, "type": "Directory"}}]})
        ended = self.wait_for_reason("paths", "main", "terminated", exitCode=3)
        self.assertEqual(ended["state"]["terminated"]["message"], "goodbye\n")
        self.assertEqual(node.logs("paths", "main"), "from-host\n")
        with open(os.path.join(path, "file"), encoding="ascii") as written:
            self.assertEqual(written.read(), "from-guest\n")

    def test_logs_are_rotated_and_nothing_is_lost(self):
        # Slowly enough that kubelet, which looks every three seconds, finds a file of several limits now and then.
        self.apply("logs", {"restartPolicy": "Never", "containers": [
            container("main", "i=0; while [ $i -lt 2000 ]; do echo line-$i; i=$((i+1)); [ $((i % 100)) = 0 ] && sleep 0.7; done; exec sleep 1000")]})
        directory = node.wait(lambda: next((p.path for p in os.scandir(os.path.join(node.directory, "podlogs")) if "_logs-" in p.name), None),
                              "the pod's log directory")
        files = os.path.join(directory, "main")
        node.wait(lambda: os.path.isdir(files) and len(os.listdir(files)) >= 2, "a rotated log")
        node.wait(lambda: "line-1999" in node.logs("logs", "main", "?tailLines=5"), "the last line")
