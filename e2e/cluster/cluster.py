"""A cluster on one node: etcd, the control plane, kubelet and kube-proxy on moatd, and a client of its API.

Everything listens on loopback inside the suite's own namespaces. Nobody signs certificates: the API server makes
its own, which is everybody's authority, and users have tokens.
"""

import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request

import harness
import node

API = f"https://{node.ADDRESS}:6443"
ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"
PODS = "10.98.0.0/16"
SERVICES = "10.97.0.0/16"
DNS = "10.97.0.10"  # of dns_test.py's service
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl")
# name: (token, user, groups)
USERS = {
    "admin": ("admin-token", "admin", "system:masters"),
    "kubelet": ("kubelet-token", f"system:node:{node.NODE}", "system:nodes"),
    "kube-controller-manager": ("manager-token", "system:kube-controller-manager", ""),
    "kube-scheduler": ("scheduler-token", "system:kube-scheduler", ""),
    "kube-proxy": ("proxy-token", "system:kube-proxy", ""),
}
PLACES = {
    "Node": "/api/v1/nodes", "Namespace": "/api/v1/namespaces", "RuntimeClass": "/apis/node.k8s.io/v1/runtimeclasses",
    "TokenReview": "/apis/authentication.k8s.io/v1/tokenreviews",
    **{kind: f"/api/v1/namespaces/default/{kind.lower()}s" for kind in ("Pod", "Service", "ConfigMap", "Secret", "ServiceAccount", "Event")},
    **{kind: f"/apis/apps/v1/namespaces/default/{kind.lower()}s" for kind in ("Deployment", "DaemonSet", "ReplicaSet", "StatefulSet")},
    **{kind: f"/apis/batch/v1/namespaces/default/{kind.lower()}s" for kind in ("Job", "CronJob")},
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
}


def prepare(dns):
    """With the machine's network and caches at hand: Kubernetes' programs are built once, CoreDNS if `dns`, etcd is fetched."""
    node.prepare()
    for name in PROGRAMS:
        os.environ[variable(name)] = harness.script("go-tool.sh", name)
    if dns:
        os.environ[variable("coredns")] = harness.script("go-tool.sh", "coredns")
    os.environ[variable("etcd")] = harness.script("debian-tool.sh", "etcd-server")


def variable(program):
    return "MOAT_" + program.upper().replace("-", "_")


class ApiError(Exception):
    """A refusal of the API server, in its own words."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status = status


class Cluster(node.Node):
    def __init__(self, directory):
        # With the gate /metrics/cadvisor has containers by name: kubelet's own cAdvisor knows those of containerd and CRI-O only.
        self.own_configuration = {"registerNode": True, "featureGates": {"PodAndContainerStatsFromCRI": True}, "volumeStatsAggPeriod": "2s",
                                  "clusterDNS": [DNS], "clusterDomain": "cluster.local"}
        super().__init__(directory, self.own_configuration)
        self.pki = os.path.join(directory, "pki")
        os.mkdir(self.pki)
        os.mkdir(os.path.join(directory, "home"))
        self.services = {}  # the control plane's processes, in the order of their start
        opener = ssl.create_default_context()
        opener.check_hostname, opener.verify_mode = False, ssl.CERT_NONE
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=opener))

    # The stage.
    def start(self, images):
        with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as forward:  # this namespace's; as on every node
            forward.write("1")
        subprocess.run(["ip", "addr", "replace", node.ADDRESS + "/32", "dev", "lo"], check=True)
        # A node has a default route: kube-proxy's rules see what was routed.
        subprocess.run(["ip", "route", "replace", SERVICES, "dev", "lo", "src", node.ADDRESS], check=True)
        self.write_credentials()
        self.start_moatd()
        self.serve("etcd", "--data-dir=" + self.directory + "/etcd", "--unsafe-no-fsync", "--listen-client-urls=" + ETCD,
                   "--advertise-client-urls=" + ETCD, "--listen-peer-urls=" + ETCD_PEER, "--initial-advertise-peer-urls=" + ETCD_PEER,
                   "--initial-cluster=default=" + ETCD_PEER)
        self.serve("kube-apiserver", "--etcd-servers=" + ETCD, "--bind-address=" + node.ADDRESS, "--secure-port=6443",
                   "--cert-dir=" + self.pki, "--service-account-issuer=https://kubernetes.default.svc",
                   f"--service-account-key-file={self.pki}/sa.pub", f"--service-account-signing-key-file={self.pki}/sa.key",
                   f"--token-auth-file={self.pki}/tokens.csv", "--authorization-mode=Node,RBAC", "--service-cluster-ip-range=" + SERVICES,
                   "--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP")
        self.load(images)
        self.wait(self.is_up, "the API server is ready")
        config = "--kubeconfig=" + self.kubeconfig("kube-controller-manager")
        self.serve("kube-controller-manager", config, config.replace("--", "--authentication-", 1), config.replace("--", "--authorization-", 1),
                   "--bind-address=127.0.0.1", f"--service-account-private-key-file={self.pki}/sa.key", f"--root-ca-file={self.pki}/apiserver.crt",
                   "--use-service-account-credentials", "--leader-elect=false", "--allocate-node-cidrs", "--cluster-cidr=" + PODS,
                   "--service-cluster-ip-range=" + SERVICES)
        config = "--kubeconfig=" + self.kubeconfig("kube-scheduler")
        self.serve("kube-scheduler", config, config.replace("--", "--authentication-", 1), config.replace("--", "--authorization-", 1),
                   "--bind-address=127.0.0.1", "--leader-elect=false")
        self.kubectl("apply", "-f", os.path.join(harness.ROOT, "manifests", "runtimeclass.yaml"))
        self.kubelet_arguments = ["--kubeconfig=" + self.kubeconfig("kubelet")]
        self.start_kubelet()
        self.start_proxy()
        self.wait(self.is_node_ready, lambda: f"the node is ready: {self.find('Node', node.NODE)}")
        self.wait(lambda: self.find("ServiceAccount", "default"), "the default service account")

    def write_credentials(self):
        key, public = os.path.join(self.pki, "sa.key"), os.path.join(self.pki, "sa.pub")
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", public], check=True, stderr=subprocess.DEVNULL)
        with open(os.path.join(self.pki, "tokens.csv"), "w", encoding="ascii") as out:
            for token, user, groups in USERS.values():
                out.write(f"{token},{user},{user},{groups}\n")
        for name, (token, _, _) in USERS.items():
            with open(self.kubeconfig(name), "w", encoding="ascii") as out:
                json.dump({
                    "apiVersion": "v1", "kind": "Config", "current-context": "moat",
                    "clusters": [{"name": "moat", "cluster": {"server": API, "certificate-authority": os.path.join(self.pki, "apiserver.crt")}}],
                    "users": [{"name": name, "user": {"token": token}}],
                    "contexts": [{"name": "moat", "context": {"cluster": "moat", "user": name}}],
                }, out)

    def kubeconfig(self, name):
        return os.path.join(self.pki, name + ".conf")

    def restart_kubelet(self, *arguments, **configuration):
        """With flags and KubeletConfiguration that override the cluster's own, until it is started again."""
        self.stop_kubelet()
        self.configuration = {**self.own_configuration, **configuration}
        self.kubelet_arguments = ["--kubeconfig=" + self.kubeconfig("kubelet"), *arguments]
        self.start_kubelet()

    def start_proxy(self):
        config = os.path.join(self.directory, "kube-proxy.yaml")
        with open(config, "w", encoding="ascii") as out:
            json.dump({
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables", "clusterCIDR": PODS,
                "hostnameOverride": node.NODE, "clientConnection": {"kubeconfig": self.kubeconfig("kube-proxy")},
                "bindAddress": "127.0.0.1", "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
                "conntrack": {"maxPerCore": 0, "min": 0},  # 0: the machine's settings are left alone
            }, out)
        self.serve("kube-proxy", "--config=" + config)

    def serve(self, name, *arguments):
        self.services[name] = self.spawn(name, [os.environ[variable(name)], *arguments])

    def stop(self):
        """Ends everything. Returns moatd's exit status."""
        status = super().stop()
        for process in reversed(self.services.values()):
            self.end(process)
        return status

    def is_up(self):
        process = self.services["kube-apiserver"]
        if process.poll() is not None:
            raise AssertionError(f"kube-apiserver has ended:\n{self.log('kube-apiserver')}")
        try:
            return self.request("GET", "/readyz") == "ok"
        except (ApiError, OSError):
            return False

    def is_node_ready(self):
        found = self.find("Node", node.NODE)
        return found and found["spec"].get("podCIDR") and condition(found, "Ready") == "True" and not found["spec"].get("taints")

    # The API.
    def request(self, method, path, body=None, content="application/json"):
        """JSON is taken apart, other answers are text."""
        headers = {"Authorization": "Bearer " + USERS["admin"][0], "Content-Type": content}
        data = json.dumps(body).encode() if body is not None else None
        try:
            with self.opener.open(urllib.request.Request(API + path, data, headers, method=method), timeout=60) as answer:
                text = answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode("utf-8", "replace")) from None
        return json.loads(text) if answer.headers.get_content_type() == "application/json" else text

    def create(self, thing):
        return self.request("POST", PLACES[thing["kind"]], thing)

    def find(self, kind, name):
        try:
            return self.request("GET", f"{PLACES[kind]}/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind, selector=""):
        return self.request("GET", PLACES[kind] + (f"?labelSelector={selector}" if selector else ""))["items"]

    def patch(self, kind, name, change, below=""):
        return self.request("PATCH", f"{PLACES[kind]}/{name}{below}", change, "application/merge-patch+json")

    def delete(self, kind, name, grace=None):
        """What the object owns goes first. That it is not there is no error."""
        options = {"propagationPolicy": "Foreground", **({} if grace is None else {"gracePeriodSeconds": grace})}
        try:
            self.request("DELETE", f"{PLACES[kind]}/{name}", options)
        except ApiError as error:
            if error.status != 404:
                raise

    def through_node(self, path):
        """A path of kubelet's server, by the API server's proxy."""
        return self.request("GET", f"/api/v1/nodes/{node.NODE}/proxy{path}")

    # kubectl.
    def kubectl_environment(self, **more):
        home = os.path.join(self.directory, "home")
        return {**os.environ, "KUBECONFIG": self.kubeconfig("admin"), "HOME": home, "KUBECACHEDIR": home + "/cache", **more}

    def kubectl_command(self, *arguments):
        return [os.environ[variable("kubectl")], *arguments]

    def kubectl(self, *arguments, stdin=None, status=0, seconds=120, **environment):
        """Runs kubectl; `stdin` is bytes. Fails unless it ends with `status`. Returns its output as bytes."""
        source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(self.kubectl_command(*arguments), capture_output=True, timeout=seconds, check=False,
                              env=self.kubectl_environment(**environment), **source)
        if done.returncode != status:
            raise AssertionError(f"kubectl {' '.join(arguments)}: status {done.returncode}, expected {status}\n"
                                 f"stdout: {done.stdout[-2000:].decode('utf-8', 'replace')}\n"
                                 f"stderr: {done.stderr[-2000:].decode('utf-8', 'replace')}\nmoatd:\n{self.log('moatd')}")
        return done.stdout

    def follow(self, *arguments, **environment):
        """Starts kubectl with pipes at its input and output."""
        return subprocess.Popen(self.kubectl_command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=self.kubectl_environment(**environment), start_new_session=True)


def condition(thing, kind):
    """The status of an object's condition; "" when it has none of that kind."""
    return next((c["status"] for c in thing.get("status", {}).get("conditions") or [] if c["type"] == kind), "")
