"""The stage on which critest plays: a registry on loopback with its images, and CRI servers beside it.

Inside harness's namespaces. Every server has the same mirrors and the same CNI configuration, so that
what is compared differs in nothing else.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "images")]

import harness  # noqa: E402
import host  # noqa: E402
import images  # noqa: E402
import ociimage  # noqa: E402

REGISTRY = "127.0.0.1:5000"
SANDBOX_IMAGE = "registry.k8s.io/pause:3.10"
# Debian's plugins; port mappings and masquerading need iptables.
CNI_CONFIG = {
    "cniVersion": "1.0.0", "name": "critest",
    "plugins": [
        {"type": "bridge", "bridge": "critest0", "isGateway": True, "ipMasq": True, "promiscMode": True,
         "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def tool_variable(name):
    return "MOAT_" + name.upper().replace("-", "_")


def prepare(with_containerd=False):
    """Outside, with the machine's network and caches at hand."""
    os.environ["CRITEST_DIGEST"] = images.by_digest().finish()[1]
    os.environ["MOAT_CRITEST"] = harness.script("go-tool.sh", "critest")
    os.environ["MOAT_REGISTRY"] = harness.script("debian-tool.sh", "docker-registry")
    os.environ["MOAT_NGINX"] = harness.script("debian-tool.sh", "nginx")
    # Debian's runc maps no ids of mounts.
    for name in ("runc", "containerd", "containerd-shim-runc-v2") if with_containerd else ("runc",):
        os.environ[tool_variable(name)] = harness.script("go-tool.sh", name)


class Service:
    """A program of the stage, stopped by its own pid."""

    def __init__(self, name, command, directory):
        self.name = name
        self.log_path = os.path.join(directory, name + ".log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def wait_until(self, ready, seconds=30):
        deadline = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{self.name} is not ready; its log:\n{host.read(self.log_path)[-3000:]}")
            time.sleep(0.05)

    def stop(self):
        """The exit status; None when it had to be killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


def answers(socket_type, address):
    """Whether somebody listens there."""
    with socket.socket(socket_type) as peer:
        try:
            peer.connect(address)
            return True
        except OSError:
            return False


def start_registry(directory):
    config = os.path.join(directory, "registry.yml")
    with open(config, "w", encoding="ascii") as out:
        out.write(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/registry}}, delete: {{enabled: true}}}}\n"
                  f"http: {{addr: '{REGISTRY}'}}\n")
    service = Service("registry", [os.environ["MOAT_REGISTRY"], "serve", config], directory)
    name, port = REGISTRY.split(":")
    service.wait_until(lambda: answers(socket.AF_INET, (name, int(port))))
    for reference, image in images.all_images(os.environ["MOAT_NGINX"]).items():
        repository, _, tag = reference.rpartition(":")
        ociimage.push(image, REGISTRY, repository, tag)
    return service


def write_mirrors(directory):
    """containerd's format: images of these hosts come from the test's registry under their own names."""
    for name in images.MIRRORED:
        os.makedirs(os.path.join(directory, name))
        with open(os.path.join(directory, name, "hosts.toml"), "w", encoding="ascii") as out:
            out.write(f'server = "http://{REGISTRY}"\n\n[host."http://{REGISTRY}"]\ncapabilities = ["pull", "resolve"]\n')


def write_cni(directory):
    os.makedirs(directory)
    with open(os.path.join(directory, "10-critest.conflist"), "w", encoding="ascii") as out:
        json.dump(CNI_CONFIG, out)


def hide_cni_state():
    """host-local's and libcni's own files end with the run."""
    os.makedirs("/var/lib/cni", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "cni", "/var/lib/cni"], check=True)


def start_moatd(directory, with_cni, more=()):
    """Returns the service and its socket. Without CNI it is moatd's built-in network."""
    write_mirrors(os.path.join(directory, "certs.d"))
    if with_cni:
        write_cni(os.path.join(directory, "net.d"))
    endpoint = os.path.join(directory, "s")
    service = Service("moatd", [
        os.path.join(harness.BUILD, "moatd"), "--socket", "unix://" + endpoint, "--root", directory + "/lib", "--state", directory + "/run",
        "--cni-conf-dir", directory + "/net.d", "--cni-bin-dir", "/usr/lib/cni", "--registry-config-dir", directory + "/certs.d",
        "--native-runtime", os.environ["MOAT_RUNC"], *more,
    ], directory)
    service.wait_until(lambda: answers(socket.AF_UNIX, endpoint))
    return service, endpoint


def start_containerd(directory):
    """The same with containerd and runc, as their defaults are but for what this machine lacks. It has the network of CNI only."""
    write_mirrors(os.path.join(directory, "certs.d"))
    write_cni(os.path.join(directory, "net.d"))
    programs = os.path.join(directory, "bin")
    os.makedirs(programs)
    for name in ("containerd-shim-runc-v2", "runc"):
        os.symlink(os.environ[tool_variable(name)], os.path.join(programs, name))
    endpoint = os.path.join(directory, "s")
    config = os.path.join(directory, "config.toml")
    with open(config, "w", encoding="ascii") as out:
        # No CAP_SYS_RESOURCE: scores cannot go down. The ping of a spec wants what unprivileged_icmp gives away.
        out.write(f"""\
version = 3
root = "{directory}/lib"
state = "{directory}/run"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{endpoint}"
[ttrpc]
  address = "{endpoint}.ttrpc"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{SANDBOX_IMAGE}"
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "{directory}/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  enable_unprivileged_ports = false
  enable_unprivileged_icmp = false
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "{directory}/net.d"
[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
""")
    os.environ["PATH"] = programs + ":" + os.environ["PATH"]
    service = Service("containerd", [os.environ["MOAT_CONTAINERD"], "-c", config], directory)
    service.wait_until(lambda: answers(socket.AF_UNIX, endpoint))
    return service, endpoint


def enter():
    """As harness.enter(). Without a cgroup parent containerd's pods are below k8s.io of each hierarchy's root."""
    missing = [h for h in host.hierarchies() if not os.path.exists(os.path.join(h, "k8s.io"))]
    try:
        return harness.enter()
    finally:
        if len(missing) == len(host.hierarchies()):
            host.remove_cgroup("k8s.io")
