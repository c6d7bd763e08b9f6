"""moatd or kubelet killed below a running cluster."""

import signal

from case import Case, container, web
from cluster import condition


class Faults(Case):
    def pods(self):
        return {p["metadata"]["name"]: p for p in self.cluster.list("Pod")}

    def lives(self):
        """What must be the same behind a restart: which containers run, and how often they were started."""
        return {(name, c["containerID"], c["restartCount"]) for name, p in self.pods().items() for c in p["status"]["containerStatuses"]}

    def start_everything(self):
        for handler in ("moat", "native"):
            self.handler = handler
            self.start_pod("stays-" + handler, web(handler), container("counts", "i=0; while :; do echo $i; i=$((i+1)); usleep 100000; done"))
        for handler in ("moat", "native"):
            self.wait_ready("stays-" + handler)

    def kill_moatd(self):
        self.cluster.kill_moatd()
        self.addCleanup(self.restart)  # when the test fails before

    def restart(self):
        if self.cluster.moatd.poll() is not None:
            self.cluster.start_moatd()
            self.before.expect_process(self.cluster.moatd.pid)
            self.descriptors = None

    def wait_for_node(self):
        self.wait(lambda: condition(self.cluster.find("Node", "node1"), "Ready") == "True", "the node is ready")

    def exec_works(self):
        for handler in ("moat", "native"):
            self.wait(lambda: "works" in self.kubectl_or_nothing("exec", "stays-" + handler, "-c", "web", "--", "echo", "works"), f"an exec in stays-{handler}")

    def kubectl_or_nothing(self, *arguments):
        try:
            return self.kubectl(*arguments)
        except AssertionError:
            return ""

    def test_moatd_killed_and_restarted_under_the_cluster(self):
        self.start_everything()
        before = self.lives()
        follower = self.cluster.follow("logs", "-f", "stays-moat", "-c", "counts")
        self.assertEqual(follower.stdout.readline(), b"0\n")
        for _ in range(3):
            self.kill_moatd()
            self.restart()
            self.exec_works()
        self.wait_for_node()
        self.assertEqual(self.lives(), before)
        # Neither the log nor who follows it has missed a line.
        seen = [0]
        while seen[-1] < 30:
            seen.append(int(follower.stdout.readline()))
        self.assertEqual(seen, list(range(31)))
        follower.send_signal(signal.SIGTERM)
        follower.communicate(timeout=30)
        # The new one does all of the rest.
        self.handler = "moat"
        self.run_pod("new", container("main", "exec sleep 1000"))
        self.assertEqual(self.lives() - {life for life in self.lives() if life[0] == "new"}, before)

    def test_moatd_is_away_while_pods_are_deleted_and_made(self):
        self.start_everything()
        self.kill_moatd()
        self.kubectl("delete", "pod", "stays-native", "--now", "--wait=false")
        self.handler = "moat"
        self.start_pod("waits", container("main", "exec sleep 1000"))
        self.wait(lambda: condition(self.cluster.find("Node", "node1"), "Ready") == "False", "the node is told not to be ready", 150)
        self.restart()
        self.wait(lambda: not self.cluster.find("Pod", "stays-native"), "the deleted pod is gone")
        self.wait_ready("waits")
        self.wait_for_node()

    def test_kubelet_killed_and_restarted(self):
        self.start_everything()
        before = self.lives()
        self.cluster.kubelet.kill()
        self.cluster.kubelet.wait()
        self.cluster.start_kubelet()
        self.before.expect_process(self.cluster.kubelet.pid)
        self.exec_works()
        self.wait_for_node()
        self.handler = "moat"
        self.run_pod("new", container("main", "exec sleep 1000"))
        self.assertEqual(self.lives() - {life for life in self.lives() if life[0] == "new"}, before)
