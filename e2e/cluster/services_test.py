"""Services by kube-proxy (nftables): from sandboxed and native pods and from the node, and the API from inside a pod."""

import json
import os
import subprocess

from case import Case, container, web
from cluster import variable
from node import ADDRESS

PROBE = "timeout 10 wget -q -O - http://{}/ || true"  # not wget -T: with it, Debian's busybox crashes on addresses


class Services(Case):
    def backends(self, *handlers):
        """One pod a handler, all behind the service `both`. Returns the service's address."""
        for handler in handlers:
            self.handler = handler
            self.start_pod("serves-" + handler, web(handler, 8080), labels={"app": "both"})
        service = self.create("Service", "both", spec={"selector": {"app": "both"}, "ports": [{"port": 80, "targetPort": 8080}]})
        for handler in handlers:
            self.wait_ready("serves-" + handler)
        return service["spec"]["clusterIP"]

    def test_cluster_address_leads_to_pods_of_both_handlers(self):
        address = self.backends("moat", "native")
        for handler in ("moat", "native"):
            self.handler = handler
            self.run_pod("asks-" + handler, container("main", "exec sleep 1000"))
            answers = set()

            def both():
                answers.add(self.in_pod("asks-" + handler, PROBE.format(address)))
                return {"moat\n", "native\n"} <= answers
            self.wait(both, lambda: f"answers of both from a pod of {handler}: {answers}")
        # A pod asks for itself by its service's address.
        self.wait(lambda: self.in_pod("serves-moat", PROBE.format(address)) == "moat\n", "a pod reaches itself by its service")
        self.wait(lambda: subprocess.run(["wget", "-q", "-T", "5", "-t", "1", "-O", "-", f"http://{address}/"], capture_output=True,
                                         env={**os.environ, "no_proxy": "*"}, check=False).stdout in (b"moat\n", b"native\n"), "the node reaches the service")

    def test_endpoints_follow_readiness(self):
        address = self.backends("moat", "native")
        self.handler = "moat"
        self.run_pod("asks", container("main", "exec sleep 1000"))
        self.in_pod("serves-native", "rm /www/index.html")

        def ready():
            slices = self.cluster.list("EndpointSlice", "kubernetes.io/service-name=both")
            return sum(e["conditions"]["ready"] for s in slices for e in s["endpoints"] or [])
        self.wait(lambda: ready() == 1, "one ready endpoint")
        self.wait(lambda: [self.in_pod("asks", PROBE.format(address)) for _ in range(6)] == ["moat\n"] * 6, "only the ready one answers")

    def test_node_port(self):
        self.backends("moat")
        self.cluster.patch("Service", "both", {"spec": {"type": "NodePort"}})
        port = self.cluster.find("Service", "both")["spec"]["ports"][0]["nodePort"]
        self.handler = "moat"
        self.run_pod("asks", container("main", "exec sleep 1000"))
        self.wait(lambda: self.in_pod("asks", PROBE.format(f"{ADDRESS}:{port}")) == "moat\n", "an answer at the node's port")

    def test_kubectl_inside_a_sandboxed_pod(self):
        """A real client within: the service's address, the projected token, the cluster's certificate, a Go program of 60 MB."""
        self.kubectl("create", "rolebinding", "pods-may-look", "--clusterrole=view", "--serviceaccount=default:default")
        self.addCleanup(self.kubectl, "delete", "rolebinding", "pods-may-look")
        tools = os.path.dirname(os.environ[variable("kubectl")])
        self.run_pod("client", container("main", "exec sleep 1000", volumeMounts=[{"name": "tools", "mountPath": "/tools", "readOnly": True}]),
                     volumes=[{"name": "tools", "hostPath": {"path": tools, "type": "Directory"}}])
        self.wait(lambda: "kubernetes" in self.in_pod("client", "/tools/kubectl get services -o name 2>&1 || true"), "the API answers inside")
        found = json.loads(self.in_pod("client", "/tools/kubectl get pod client -o json"))
        self.assertEqual(found["metadata"]["name"], "client")
        self.assertEqual(found["spec"]["runtimeClassName"], "moat")
        self.assertIn("forbidden", self.in_pod("client", "/tools/kubectl delete pod client 2>&1 || true").lower())


class PortNames(Case):
    def test_host_port(self):
        self.run_pod("hosts", {**web("by host port", 8080), "ports": [{"containerPort": 8080, "hostPort": 18080}]})
        self.run_pod("asks", container("main", "exec sleep 1000"))
        self.wait(lambda: self.in_pod("asks", PROBE.format(f"{ADDRESS}:18080")) == "by host port\n", "an answer at the host port")
