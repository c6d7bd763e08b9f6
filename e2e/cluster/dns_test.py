"""Names of the cluster, by CoreDNS in the sandbox behind a service: kubelet gives its address to each pod."""

import os
import re

import harness
import mkimage
import ociimage
from case import Case, container, web
from cluster import DNS, variable

MANIFEST = os.path.join(harness.ROOT, "e2e", "cluster", "coredns.yaml")
IMAGE = "moat.test/coredns:latest"
PODS = "/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-dns"
METRIC = re.compile(r'^coredns_dns_requests_total\{[^}]*proto="(\w+)"[^}]*\} (\d+)', re.M)


class Names(Case):
    def setUp(self):
        super().setUp()
        with open(os.environ[variable("coredns")], "rb") as program:
            self.cluster.load({IMAGE: mkimage.busybox([[ociimage.file("bin/coredns", program.read(), 0o755)]])})
        self.addCleanup(self.cluster.moatd_command, "image", "remove", IMAGE)
        self.addCleanup(self.stop_dns)
        self.kubectl("apply", "-f", MANIFEST)
        self.kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=90s")

    def stop_dns(self):
        self.kubectl("delete", "-f", MANIFEST, "--cascade=foreground", "--timeout=60s", "--ignore-not-found")
        self.wait(lambda: not self.servers(), "its pods are gone")

    def servers(self):
        return self.cluster.request("GET", PODS)["items"]

    def questions(self, protocol):
        """How many questions by UDP or TCP both servers have had."""
        count = 0
        for pod in self.servers():
            text = self.kubectl("exec", "-n", "kube-system", pod["metadata"]["name"], "--", "wget", "-q", "-O", "-", "http://127.0.0.1:9153/metrics")
            count += sum(int(n) for found, n in METRIC.findall(text) if found == protocol)
        return count

    def serve(self):
        """A service with an address, and a headless one with two named pods."""
        self.create("Service", "front", spec={"selector": {"app": "ordered"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]})
        self.create("Service", "ordered", spec={"selector": {"app": "ordered"}, "clusterIP": "None", "ports": [{"name": "http", "port": 8080}]})
        self.create("StatefulSet", "ordered", "apps/v1", spec={
            "replicas": 2, "serviceName": "ordered", "selector": {"matchLabels": {"app": "ordered"}}, "template": self.template([web("$HOSTNAME", 8080)], {"app": "ordered"})})
        self.kubectl("rollout", "status", "statefulset/ordered", "--timeout=90s")

    def answer(self, pod, command, text):
        """Waits until a command in a pod prints `text`: names are served a moment after they are made."""
        told = []

        def look():
            told[:] = [self.in_pod(pod, f"timeout 10 {command} 2>&1 || true")]
            return text in told[0]
        self.wait(look, lambda: f"{text!r} of {command} in {pod}: {told}")

    def refer(self, client):
        """All that the cluster's names are used for, from a pod."""
        self.answer(client, "nslookup kubernetes.default.svc.cluster.local", "Address: 10.97.0.1\n")
        for name in ("front", "front.default", "front.default.svc", "front.default.svc.cluster.local"):
            self.answer(client, f"wget -q -O - http://{name}/", "ordered-")
        for name in ("ordered-1.ordered", "ordered-1.ordered.default.svc.cluster.local"):
            self.answer(client, f"wget -q -O - http://{name}:8080/", "ordered-1\n")
        for name in ("ordered-0", "ordered-1"):
            address = self.pod(name)["status"]["podIP"]
            self.answer(client, "nslookup ordered.default.svc.cluster.local", f"Address: {address}\n")
            self.answer(client, f"nslookup {address}", f"name = {name}.ordered.default.svc.cluster.local")
        self.answer(client, "nslookup -type=srv _http._tcp.ordered.default.svc.cluster.local", "8080 ordered-1.ordered.default.svc.cluster.local")
        self.answer(client, "nslookup nothing.default.svc.cluster.local", "NXDOMAIN")

    def test_names_by_udp(self):
        self.serve()
        for handler in ("moat", "native"):
            self.handler = handler
            self.run_pod("asks-" + handler, container("main", "exec sleep 1000"))
            lines = self.in_pod("asks-" + handler, "cat /etc/resolv.conf").splitlines()
            self.assertEqual(sorted(lines), [f"nameserver {DNS}", "options ndots:5", "search default.svc.cluster.local svc.cluster.local cluster.local"])
            before = self.questions("udp")
            self.refer("asks-" + handler)
            self.assertGreaterEqual(self.questions("udp") - before, 20)
        # A name goes with its pod.
        self.kubectl("scale", "statefulset/ordered", "--replicas=1")
        self.answer("asks-moat", "nslookup ordered-1.ordered.default.svc.cluster.local", "NXDOMAIN")

    def test_names_by_tcp(self):
        self.serve()
        for handler in ("moat", "native"):
            self.handler = handler
            self.run_pod("asks-" + handler, container("main", "exec sleep 1000"), dnsConfig={"options": [{"name": "use-vc"}]})
            before = self.questions("tcp")
            for name in ("front", "front.default.svc.cluster.local"):
                self.answer("asks-" + handler, f"wget -q -O - http://{name}/", "ordered-")
            self.answer("asks-" + handler, "wget -q -O - http://ordered-1.ordered:8080/", "ordered-1\n")
            self.assertGreaterEqual(self.questions("tcp") - before, 3)

    def test_a_go_program_finds_the_api_by_its_name(self):
        """Go's own resolver, and a certificate for that name."""
        self.kubectl("create", "rolebinding", "pods-may-look", "--clusterrole=view", "--serviceaccount=default:default")
        self.addCleanup(self.kubectl, "delete", "rolebinding", "pods-may-look")
        tools = os.path.dirname(os.environ[variable("kubectl")])
        self.run_pod("client", container("main", "exec sleep 1000", volumeMounts=[{"name": "tools", "mountPath": "/tools", "readOnly": True}]),
                     volumes=[{"name": "tools", "hostPath": {"path": tools, "type": "Directory"}}])
        account = "/var/run/secrets/kubernetes.io/serviceaccount"
        for name in ("kubernetes.default.svc", "kubernetes.default"):
            self.answer("client", f"/tools/kubectl --server=https://{name} --certificate-authority={account}/ca.crt --token=$(cat {account}/token) get pod client -o name", "pod/client")
