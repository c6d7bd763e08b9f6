"""What pods are made of: volumes, limits, namespaces, logs; asked by kubelet, static pods on moatd."""

import gzip
import os
import re
import urllib.request

from case import PodCase
from static_node import GRPC_IMAGE, container


class Pods(PodCase):
    def test_pod_of_two_containers_with_limits_probes_and_volumes(self):
        probe = {"exec": {"command": ["cat", "/shared/ready"]}, "periodSeconds": 1}
        web = container(
            "web", "mkdir -p /www && echo hello > /www/index.html && echo up && touch /shared/ready && exec httpd -f -p 8080 -h /www",
            readinessProbe={"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1},
            livenessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1}, startupProbe=probe,
            resources={"limits": {"cpu": "500m", "memory": "64Mi"}},
            volumeMounts=[{"name": "shared", "mountPath": "/shared"}, {"name": "memory", "mountPath": "/memory"}])
        side = container(
            "side", "until [ -e /shared/ready ]; do usleep 100000; done; wget -q -O - http://127.0.0.1:8080/; mount | grep ' /memory '; exec sleep 1000",
            volumeMounts=[{"name": "shared", "mountPath": "/shared", "readOnly": True}, {"name": "memory", "mountPath": "/memory"}])
        volumes = [{"name": "shared", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}]
        self.apply("two", {"containers": [web, side], "volumes": volumes})
        self.wait_ready("two")
        self.assertIn("hello", self.node.wait(lambda: self.node.logs("two", "side"), "the neighbour's log"))
        self.assertEqual(self.node.logs("two", "web"), "up\n")
        limit = self.node.cgroup_file(self.node.container("two", "web")["containerID"], "memory", "memory.limit_in_bytes")
        self.assertEqual(limit, str(64 << 20))
        self.assertIn("moat", self.node.run("two", "web", "cat", "/proc/version").lower())

    def test_init_containers_run_in_order_and_a_sidecar_stays(self):
        first = container("first", "echo first >> /shared/order", volumeMounts=[{"name": "shared", "mountPath": "/shared"}])
        sidecar = container("sidecar", "echo sidecar >> /shared/order; exec sleep 1000", restartPolicy="Always",
                            volumeMounts=[{"name": "shared", "mountPath": "/shared"}])
        second = container("second", "until grep -q sidecar /shared/order; do usleep 100000; done; echo second >> /shared/order",
                           volumeMounts=[{"name": "shared", "mountPath": "/shared"}])
        main = container("main", "cat /shared/order; exec sleep 1000", volumeMounts=[{"name": "shared", "mountPath": "/shared"}])
        self.apply("order", {"initContainers": [first, sidecar, second], "containers": [main], "volumes": [{"name": "shared", "emptyDir": {}}]})
        self.wait_ready("order")
        self.assertEqual(self.node.wait(lambda: self.node.logs("order", "main"), "main's log"), "first\nsidecar\nsecond\n")
        self.assertIn("running", self.node.container("order", "sidecar")["state"])

    def test_host_path_sub_path_and_termination_message(self):
        path = self.directory
        os.mkdir(self.path("below"))
        main = container("main", "echo from-guest > /host/file; cat /sub/*; echo goodbye > /dev/termination-log; exit 3",
                         volumeMounts=[{"name": "host", "mountPath": "/host"}, {"name": "host", "mountPath": "/sub", "subPath": "below"}])
        with open(os.path.join(path, "below", "given"), "w", encoding="ascii") as out:
            out.write("from-host\n")
        self.apply("paths", {"restartPolicy": "Never", "containers": [main], "volumes": [{"name": "host", "hostPath": {"path": path, "type": "Directory"}}]})
        ended = self.wait_for_reason("paths", "main", "terminated", exitCode=3)
        self.assertEqual(ended["state"]["terminated"]["message"], "goodbye\n")
        self.assertEqual(self.node.logs("paths", "main"), "from-host\n")
        with open(os.path.join(path, "file"), encoding="ascii") as written:
            self.assertEqual(written.read(), "from-guest\n")

    def test_logs_are_rotated_and_nothing_is_lost(self):
        # Slowly enough that kubelet, which looks every three seconds, finds a file of several limits now and then.
        self.apply("logs", {"restartPolicy": "Never", "containers": [
            container("main", "i=0; while [ $i -lt 2000 ]; do echo line-$i; i=$((i+1)); [ $((i % 100)) = 0 ] && sleep 0.7; done; exec sleep 1000")]})
        directory = self.node.wait(lambda: next((p.path for p in os.scandir(os.path.join(self.node.directory, "podlogs")) if "_logs-" in p.name), None),
                              "the pod's log directory")
        files = os.path.join(directory, "main")
        self.node.wait(lambda: os.path.isdir(files) and len(os.listdir(files)) >= 2, "a rotated log")

        def numbers():
            """Of the lines in all files, the oldest first; None while kubelet moves or packs them."""
            text = ""
            try:
                for name in sorted(os.listdir(files), key=lambda name: (name == "0.log", name)):
                    with (gzip.open if name.endswith(".gz") else open)(os.path.join(files, name), "rt", encoding="utf-8") as log:
                        text += log.read()
            except (OSError, EOFError):
                return None
            found = [int(n) for n in re.findall(r" line-(\d+)$", text, re.M)]
            return found if found[-1:] == [1999] else None

        kept = self.node.wait(numbers, lambda: f"the last line: {os.listdir(files)}")
        self.assertEqual(kept, list(range(kept[0], 2000)))

    def test_termination_message_falls_back_to_the_log_on_an_error(self):
        self.apply("last", {"restartPolicy": "Never", "containers": [
            container("main", "echo last words; exit 4", terminationMessagePolicy="FallbackToLogsOnError"),
            container("well", "echo not told", terminationMessagePolicy="FallbackToLogsOnError")]})
        self.assertEqual(self.wait_for_reason("last", "main", "terminated", exitCode=4)["state"]["terminated"]["message"], "last words\n")
        self.assertNotIn("message", self.wait_for_reason("last", "well", "terminated", exitCode=0)["state"]["terminated"])

    def test_files_as_config_maps_and_the_downward_api_give_them(self):
        self.write("app.conf", "key=1\n")
        volumes = [
            {"name": "conf", "hostPath": {"path": self.path("app.conf"), "type": "File"}},
            {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "both", "downwardAPI": {"defaultMode": 0o440, "items": [
                {"path": "deep/name", "fieldRef": {"fieldPath": "metadata.name"}},
                {"path": "limit", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory"}}]}}]
        mounts = [{"name": "conf", "mountPath": "/etc/app/app.conf", "readOnly": True}, {"name": "down", "mountPath": "/down", "readOnly": True},
                  {"name": "both", "mountPath": "/both"}, {"name": "both", "mountPath": "/one", "subPath": "deep/name"}]
        script = ("cat /etc/app/app.conf /down/labels; echo; cat /both/deep/name; echo; cat /both/limit; echo; cat /one; echo; "
                  "echo x > /etc/app/app.conf || echo refused; echo $POD_IP $(hostname -i); readlink /down/labels; echo end; exec sleep 1000")
        main = container("main", script, volumeMounts=mounts, resources={"limits": {"memory": "48Mi"}},
                         env=[{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}])
        self.apply("files", {"containers": [main], "volumes": volumes}, labels={"app": "moat"})
        text = self.wait_log("files", "main", "end\n")
        lines = text.splitlines()
        self.assertEqual(lines[:5], ["key=1", 'app="moat"', "files-node1", str(48 << 20), "files-node1"])
        self.assertIn("refused", lines)
        address = self.node.pod("files")["status"]["podIP"]
        self.assertIn(f"{address} {address}", lines)
        self.assertIn("..data/labels", lines)  # the writer of config maps: a link that is replaced at one stroke
        self.write("app.conf", "key=2\n")
        self.assertEqual(self.node.run("files", "main", "cat", "/etc/app/app.conf"), "key=2\n")

    def test_containers_of_a_pod_share_a_process_namespace(self):
        both = [{"name": "both", "mountPath": "/both"}]
        killer = container("killer", "until [ -e /both/ready ]; do usleep 100000; done; for p in /proc/[0-9]*; do "
                                     "grep -q waiting-[o]ne $p/cmdline && kill -TERM ${p#/proc/}; done; exec sleep 1000", volumeMounts=both)
        waiting = container("waiting", "", volumeMounts=both)
        waiting["command"] = ["/bin/sh", "-c", "trap 'exit 9' TERM; touch /both/ready; sleep 1000 & wait", "waiting-one"]
        self.apply("shared", {"restartPolicy": "Never", "shareProcessNamespace": True, "containers": [killer, waiting],
                              "volumes": [{"name": "both", "emptyDir": {}}]})
        self.wait_for_reason("shared", "waiting", "terminated", exitCode=9)
        self.assertIn("running", self.node.container("shared", "killer")["state"])

    def test_pod_in_the_nodes_network(self):
        server = container("server", "mkdir /www; echo here > /www/index.html; exec httpd -f -p 18080 -h /www",
                           readinessProbe={"httpGet": {"path": "/", "port": 18080}, "periodSeconds": 1})
        asks = container("asks", "until wget -q -O - http://127.0.0.1:18080/; do usleep 100000; done; hostname; exec sleep 1000")
        self.apply("hostnet", {"hostNetwork": True, "containers": [server, asks]})
        self.wait_ready("hostnet")
        self.assertEqual(self.node.wait(lambda: self.node.logs("hostnet", "asks"), "the neighbour's answer"), "here\nnode1\n")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open("http://127.0.0.1:18080/", timeout=30) as answer:
            self.assertEqual(answer.read(), b"here\n")

    def test_pod_with_a_user_namespace(self):
        volume, mount = self.in_directory()
        main = container("main", "id -u; echo mine > /gate/file; echo memory > /memory/file; stat -c %u /gate/file /memory/file; "
                                 "cat /proc/self/uid_map; exec sleep 1000",
                         volumeMounts=[mount, {"name": "memory", "mountPath": "/memory"}])
        self.apply("users", {"hostUsers": False, "containers": [main], "volumes": [volume, {"name": "memory", "emptyDir": {"medium": "Memory"}}]})
        self.wait_ready("users")
        lines = self.node.wait(lambda: len(self.node.logs("users", "main").splitlines()) >= 4 and self.node.logs("users", "main"), "its view").splitlines()
        self.assertEqual(lines[:3], ["0", "0", "0"])
        first, outside, length = map(int, lines[3].split())
        self.assertEqual((first, length), (0, 65536))
        self.assertGreaterEqual(outside, 65536)
        self.assertEqual(os.stat(self.path("file")).st_uid, 0)  # the volume is mapped like the pod

    def test_image_as_a_volume(self):
        main = container("main", "ls /image/bin/grpc-health; touch /image/x || echo refused; exec sleep 1000",
                         volumeMounts=[{"name": "image", "mountPath": "/image"}])
        self.apply("image", {"containers": [main], "volumes": [{"name": "image", "image": {"reference": GRPC_IMAGE, "pullPolicy": "Never"}}]})
        self.wait_ready("image")
        text = self.wait_log("image", "main", "refused")
        self.assertIn("/image/bin/grpc-health", text.splitlines())

    def test_security_context(self):
        who = {"runAsUser": 1234, "runAsGroup": 1235, "supplementalGroups": [7], "fsGroup": 1236, "seccompProfile": {"type": "RuntimeDefault"}}
        main = container("main", "id -u; id -G; touch /file || echo refused; touch /data/file && stat -c %g /data/file; "
                                 "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; echo end; exec sleep 1000",
                         volumeMounts=[{"name": "data", "mountPath": "/data"}],
                         securityContext={"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}})
        self.apply("secure", {"securityContext": who, "containers": [main], "volumes": [{"name": "data", "emptyDir": {}}]})
        text = self.wait_log("secure", "main", "end\n")
        lines = text.splitlines()
        self.assertEqual(lines[0], "1234")
        self.assertEqual(set(lines[1].split()), {"1235", "7", "1236"})
        self.assertIn("refused", lines)
        self.assertIn("1236", lines)
        self.assertEqual({line.split()[0]: line.split()[1] for line in lines if ":\t" in line},
                         {"CapEff:": "0000000000000000", "NoNewPrivs:": "1", "Seccomp:": "2"})
