"""What kubelet does with a whole node: collects images, meets pressure, shuts down. On a node of its own, whose disk is
small, whose kubelet asks the CRI for all figures and events (what is alpha or beta in 1.37), and who has a logind."""

import json
import os
import re
import subprocess
import tempfile
import unittest

import harness
import mkimage
import ociimage
import static_node
from case import PodCase
from node import IMAGE, NODE
from static_node import StaticNode, container

MIB = 1 << 20
DISK = 256 * MIB
UNUSED = ["moat.test/unused-one:latest", "moat.test/unused-two:latest"]
PINNED = "moat.test/pinned:latest"
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={0}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy>
</busconfig>
"""
CONFIGURATION = {
    "featureGates": {"PodAndContainerStatsFromCRI": True, "EventedPLEG": True, "CRIListStreaming": True},
    "imageGCHighThresholdPercent": 70, "imageGCLowThresholdPercent": 65, "imageMinimumGCAge": "1s", "imageMaximumGCAge": "6m",
    "evictionHard": {"imagefs.available": "20Mi", "nodefs.available": "1%"}, "evictionPressureTransitionPeriod": "1s",
    "shutdownGracePeriod": "40s", "shutdownGracePeriodCriticalPods": "20s",
}

_node = _logind = None


class WholeNode(StaticNode):
    def start_moatd(self, *arguments):
        super().start_moatd("--pinned-image", PINNED, *arguments)


class Logind:
    """A bus, and logind.py on it."""

    def __init__(self, directory):
        self.socket = os.path.join(directory, "bus")
        config = os.path.join(directory, "bus.conf")
        with open(config, "w", encoding="ascii") as out:
            out.write(BUS.format(self.socket))
        self.bus = subprocess.Popen(["dbus-daemon", "--config-file=" + config, "--nofork", "--nopidfile", "--print-address=1"],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.bus.stdout.readline()  # it listens
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "logind.py")
        self.logind = subprocess.Popen([program, "unix:path=" + self.socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expect("ready")

    def expect(self, word):
        said = self.logind.stdout.readline().strip()
        assert said == word, f"logind.py says {said!r}, not {word!r}"

    def tell(self, word):
        self.logind.stdin.write(word + "\n")
        self.logind.stdin.flush()

    def stop(self):
        self.logind.stdin.close()
        self.logind.wait()
        self.bus.terminate()
        self.bus.wait()


def setUpModule():
    global _node, _logind
    complaint = static_node.stop_shared()  # the ports are the same
    assert not complaint, complaint
    directory = tempfile.mkdtemp(dir=harness.scratch())
    _logind = Logind(directory)
    os.mkdir(os.path.join(directory, "lib"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", os.path.join(directory, "lib")], check=True)
    _node = WholeNode(directory, CONFIGURATION, {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=" + _logind.socket})
    _node.start({IMAGE: mkimage.busybox(), PINNED: mkimage.busybox([[ociimage.file("pinned", "\n")]])})
    _logind.expect("locked")


def tearDownModule():
    status = _node.stop()
    _logind.stop()
    subprocess.run(["umount", os.path.join(_node.directory, "lib")], check=True)
    assert status == 0, f"moatd's exit status {status}; its log:\n{_node.log('moatd')}"


class WholeNodeCase(PodCase):
    alone = True

    def the_node(self):
        return _node


class Disk(WholeNodeCase):
    def images(self):
        return {name for name in (IMAGE, PINNED, *UNUSED) if name.rsplit(":", 1)[0] in _node.moatd_command("image", "list")}

    def load_unused(self):
        # What cannot be packed.
        _node.load({name: mkimage.busybox([[ociimage.file("ballast", os.urandom(24 * MIB))]]) for name in UNUSED})
        self.assertEqual(self.images(), {IMAGE, PINNED, *UNUSED})

    def available(self):
        found = os.statvfs(os.path.join(_node.directory, "lib"))
        return found.f_bavail * found.f_frsize

    def leave(self, available):
        """Fills the disk until so many bytes are left."""
        path = os.path.join(_node.directory, "lib", "ballast")
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        missing = self.available() - available
        with open(path, "ab") as ballast:
            ballast.write(bytes(missing))

    def test_unused_images_go_under_pressure(self):
        self.apply("user", {"containers": [container("main", "exec sleep 1000")]})
        self.wait_ready("user")
        self.load_unused()
        # Under pressure all that is unused goes, and then no pod has to. (Kubelet spares images that it has only just seen.)
        self.leave(12 * MIB)
        _node.wait(lambda: self.images() == {IMAGE, PINNED}, lambda: f"what nobody uses is collected: {self.images()}")
        _node.wait(lambda: "able to reduce resource pressure without evicting pods" in _node.whole_log("kubelet"), "the pressure is gone")
        self.assertGreater(self.available(), 12 * MIB + 40 * MIB)  # the space of both
        self.assertTrue(_node.ready("user"))

        # And when nothing is left to collect, a pod has to: a static one is critical, the decision is all.
        chosen = f'cannot evict a critical pod" pod="default/user-{NODE}"'
        before = _node.whole_log("kubelet").count(chosen)
        self.leave(8 * MIB)
        _node.wait(lambda: _node.whole_log("kubelet").count(chosen) > before, "a pod is chosen")
        self.assertEqual(self.images(), {IMAGE, PINNED})
        self.assertEqual(_node.container("user", "main")["restartCount"], 0)

    @unittest.skipUnless("SLOW" in os.environ, "SLOW=1: kubelet looks every five minutes")
    def test_images_are_collected_by_threshold_and_by_age(self):
        """Kubelet looks at its start and every five minutes (`ImageGCPeriod`, a constant). An image that it sees for the
        first time is spared then; so it starts when all are there, collects by threshold at its second look, and by age
        at its third, since it lets its own first six minutes pass before that."""

        def collected():
            found = re.findall(r'^kubelet_image_garbage_collected_total\{reason="(\w+)"\} (\d+)', _node.get("/metrics"), re.M)
            return {reason: int(count) for reason, count in found}

        self.apply("user", {"containers": [container("main", "exec sleep 1000")]})
        self.wait_ready("user")
        self.load_unused()
        self.leave(DISK * 28 // 100)  # one image makes the low threshold good
        _node.stop_kubelet()
        _logind.expect("released")
        _node.start_kubelet()
        self.before.expect_process(_node.kubelet.pid)
        _logind.expect("locked")
        _node.wait(collected, lambda: f"an image is collected: {self.images()}", 400, every=2)
        self.assertEqual(collected(), {"space": 1})
        self.assertEqual((len(self.images()), {IMAGE, PINNED} <= self.images()), (3, True), self.images())
        _node.wait(lambda: self.available() > DISK * 35 // 100, lambda: f"its files are gone: {self.available()}")
        _node.wait(lambda: "age" in collected(), lambda: f"the other is too old: {self.images()}, {collected()}", 400, every=2)
        self.assertEqual(collected(), {"space": 1, "age": 1})
        self.assertEqual(self.images(), {IMAGE, PINNED})
        self.assertTrue(_node.ready("user"))
        self.assertEqual(_node.container("user", "main")["restartCount"], 0)


class Figures(WholeNodeCase):
    def test_figures_come_from_the_runtime(self):
        main = container("main", "dd if=/dev/zero of=/file bs=1M count=3; wget -q -O /dev/null http://127.0.0.1:9/; exec sleep 1000",
                         resources={"limits": {"memory": "64Mi"}})
        self.apply("figures", {"containers": [main]})
        self.wait_ready("figures")

        def summary():
            pods = json.loads(_node.get("/stats/summary") or "{}").get("pods") or []
            pod = next((p for p in pods if p["podRef"]["name"] == f"figures-{NODE}"), {})
            main = next((c for c in pod.get("containers", []) if c["name"] == "main"), {})
            return pod if main.get("rootfs", {}).get("usedBytes", 0) >= 3 * MIB and pod.get("memory", {}).get("workingSetBytes") else None

        pod = _node.wait(summary, lambda: f"figures of the pod: {_node.get('/stats/summary')}")
        main = pod["containers"][0]
        self.assertGreater(main["memory"]["workingSetBytes"], 0)
        self.assertGreater(main["cpu"]["usageCoreNanoSeconds"], 0)
        self.assertGreater(pod["cpu"]["usageCoreNanoSeconds"], main["cpu"]["usageCoreNanoSeconds"])
        self.assertGreater(pod["process_stats"]["process_count"], 1)
        self.assertEqual(pod["network"]["name"], "eth0")

        def labelled():
            text = _node.get("/metrics/cadvisor")
            found = dict(re.findall(r'^(container_\w+)\{(?=[^}]*container="main")(?=[^}]*pod="figures-%s")[^}]*\} (\S+)' % NODE, text, re.M))
            return found if float(found.get("container_memory_working_set_bytes", 0)) > 0 else None

        found = _node.wait(labelled, lambda: f"metrics with the container's name: {_node.get('/metrics/cadvisor')[:2000]}")
        self.assertEqual(float(found["container_spec_memory_limit_bytes"]), 64 * MIB)
        for name in ("container_cpu_usage_seconds_total", "container_processes", "container_start_time_seconds"):
            self.assertIn(name, found)


class Shutdown(WholeNodeCase):
    """The last: whoever has been shut down stays so."""

    def test_pods_end_in_their_order_and_the_lock_is_released(self):
        volume, mount = self.in_directory()

        def says(name):
            return container(name, f"trap 'sleep 1; echo {name} >> /gate/order; exit 0' TERM; sleep 1000 & wait; sleep 1000 & wait", volumeMounts=[mount])

        self.apply("critical", {"priority": 2000001000, "terminationGracePeriodSeconds": 30, "volumes": [volume], "containers": [says("critical")]})
        self.apply("normal", {"terminationGracePeriodSeconds": 30, "volumes": [volume], "containers": [says("normal")]})
        self.wait_ready("critical")
        self.wait_ready("normal")
        _logind.tell("shutdown")
        _logind.expect("released")
        self.assertEqual(self.lines("order"), ["normal", "critical"])
        for name in ("normal", "critical"):
            status = self.wait_phase(name, "Failed")
            self.assertEqual(status["reason"], "Terminated")
        self.apply("late", {"containers": [container("main", "exec sleep 1000")]})
        self.assertEqual(self.wait_phase("late", "Failed")["reason"], "NodeShutdown")
        # A shutdown that is called off: the node takes pods again.
        _logind.tell("cancel")
        _logind.expect("locked")
        self.apply("again", {"containers": [container("main", "exec sleep 1000")]})
        self.wait_ready("again")
