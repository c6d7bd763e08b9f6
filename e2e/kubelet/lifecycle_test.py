"""Probes, hooks, restarts and ends of containers, asked by kubelet."""

import time

from case import PodCase
from static_node import GRPC_IMAGE, container

# Ends at SIGTERM, and says so in the test's directory.
UNTIL_TERM = "trap 'echo {0} >> /gate/order; exit 0' TERM; sleep 1000 & wait"


class Probes(PodCase):
    def test_liveness_probe_restarts(self):
        probe = {"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1, "failureThreshold": 1}
        self.apply("sick", {"containers": [container("main", "usleep 500000; touch /tmp/sick; exec sleep 1000", livenessProbe=probe)]})
        self.wait_restarted("sick", "main")

    def test_startup_probe_holds_the_others_back(self):
        def probe(name):
            return {"exec": {"command": ["sh", "-c", f"echo x >> /gate/{name}; test -e /gate/open"]}, "periodSeconds": 1, "failureThreshold": 1000}

        volume, mount = self.in_directory()
        self.apply("slow", {"volumes": [volume], "containers": [
            container("main", "exec sleep 1000", volumeMounts=[mount], startupProbe=probe("startup"), livenessProbe=probe("alive"))]})
        self.node.wait(lambda: len(self.lines("startup")) >= 3, "the startup probe has been asked three times")
        self.assertIs(self.node.container("slow", "main")["started"], False)
        self.assertEqual(self.lines("alive"), [])
        self.write("open")
        self.wait_ready("slow")
        self.node.wait(lambda: self.lines("alive"), "then the liveness probe is asked")
        self.assertIs(self.node.container("slow", "main")["started"], True)
        self.assertEqual(self.node.container("slow", "main")["restartCount"], 0)

    def test_grpc_probes(self):
        probe = {"grpc": {"port": 5000, "service": "moat"}, "periodSeconds": 1, "failureThreshold": 1}
        main = {"name": "main", "image": GRPC_IMAGE, "imagePullPolicy": "Never", "livenessProbe": probe, "readinessProbe": probe,
                "command": ["/bin/grpc-health", "--port", "5000", "--http-port", "8080", "--service", "moat"],
                "startupProbe": {**probe, "failureThreshold": 100}}
        self.apply("grpc", {"containers": [main]})
        self.wait_ready("grpc")
        self.assertEqual(self.node.container("grpc", "main")["restartCount"], 0)
        self.node.run("grpc", "main", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/make-not-serving")
        self.wait_restarted("grpc", "main")
        self.wait_ready("grpc")

    def test_exec_probe_that_hangs_is_killed(self):
        volume, mount = self.in_directory()
        probe = {"exec": {"command": ["sh", "-c", "echo x >> /gate/asked; exec sleep 987"]}, "periodSeconds": 1, "timeoutSeconds": 1}
        self.apply("hangs", {"volumes": [volume], "containers": [container("main", "exec sleep 1000", volumeMounts=[mount], readinessProbe=probe)]})
        self.node.wait(lambda: len(self.lines("asked")) >= 3, "the probe is asked again and again")
        hanging = sum("sleep 987" in line for line in self.node.run("hangs", "main", "ps").splitlines())
        self.assertLessEqual(hanging, 1)
        self.assertFalse(self.node.ready("hangs"))
        self.assertEqual(self.node.container("hangs", "main")["restartCount"], 0)


class Hooks(PodCase):
    def test_hooks_of_all_kinds_run_in_their_order(self):
        volume, mount = self.in_directory()

        def says(word):
            return {"exec": {"command": ["sh", "-c", f"echo {word} >> /gate/order"]}}

        execs = container("execs", UNTIL_TERM.format("term"), volumeMounts=[mount],
                          lifecycle={"postStart": says("post-start"), "preStop": says("pre-stop")})
        cgi = "mkdir -p /www/cgi-bin; printf '#!/bin/sh\\necho asked >> /gate/http\\nprintf \"Content-Type: text/plain\\\\r\\\\n\\\\r\\\\nok\"\\n' > /www/cgi-bin/stop"
        http = container("http", f"{cgi}; chmod 755 /www/cgi-bin/stop; exec httpd -f -p 8080 -h /www", volumeMounts=[mount],
                         readinessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                         lifecycle={"preStop": {"httpGet": {"path": "/cgi-bin/stop", "port": 8080}}})
        sleeps = container("sleeps", "trap 'date +%s > /gate/slept; exit 0' TERM; sleep 1000 & wait", volumeMounts=[mount],
                           lifecycle={"preStop": {"sleep": {"seconds": 2}}})
        self.apply("hooks", {"terminationGracePeriodSeconds": 15, "volumes": [volume], "containers": [execs, http, sleeps]})
        self.wait_ready("hooks")
        self.assertEqual(self.lines("order"), ["post-start"])
        asked = int(time.time())
        self.node.remove("hooks")
        self.node.wait(lambda: self.lines("slept") and len(self.lines("order")) == 3 and self.lines("http"),
                       lambda: f"all hooks have run: {self.lines('order')} {self.lines('http')} {self.lines('slept')}")
        self.assertEqual(self.lines("order"), ["post-start", "pre-stop", "term"])
        self.assertEqual(self.lines("http"), ["asked"])
        self.assertGreaterEqual(int(self.lines("slept")[0]) - asked, 2)

    def test_container_whose_post_start_hook_fails_is_killed(self):
        hook = {"postStart": {"exec": {"command": ["sh", "-c", "echo no such luck >&2; exit 8"]}}}
        self.apply("unlucky", {"restartPolicy": "Never", "containers": [container("main", "exec sleep 1000", lifecycle=hook)]})
        self.wait_phase("unlucky", "Failed")
        self.assertIn("terminated", self.node.container("unlucky", "main")["state"])


class Ends(PodCase):
    def test_grace_period_is_given_and_not_more(self):
        volume, mount = self.in_directory()
        stubborn = container("stubborn", "trap 'date +%s > /gate/told' TERM; while :; do date +%s > /gate/last.new; mv /gate/last.new /gate/last; usleep 200000; done",
                             volumeMounts=[mount])
        self.apply("stubborn", {"terminationGracePeriodSeconds": 3, "volumes": [volume], "containers": [stubborn]})
        self.apply("polite", {"terminationGracePeriodSeconds": 3600, "volumes": [volume],
                              "containers": [container("main", UNTIL_TERM.format("polite"), volumeMounts=[mount])]})
        for name in ("stubborn", "polite"):
            self.wait_ready(name)
        self.node.wait(lambda: self.lines("last"), "the stubborn one works")
        self.node.remove("polite")
        self.node.remove("stubborn")
        self.node.wait(lambda: self.lines("order") == ["polite"], "the polite one has ended")
        self.node.wait(lambda: self.lines("told"), "the stubborn one has been told")
        self.node.wait(lambda: time.time() - int((self.lines("last") or ["0"])[0]) > 5, "and is silent in the end")
        self.assertGreaterEqual(int(self.lines("last")[0]) - int(self.lines("told")[0]), 2)

    def test_signal_of_the_pod_ends_it(self):
        volume, mount = self.in_directory()
        main = container("main", "trap 'echo usr1 > /gate/signal; exit 0' USR1; trap 'echo term > /gate/signal; exit 1' TERM; sleep 1000 & wait",
                         volumeMounts=[mount], lifecycle={"stopSignal": "SIGUSR1"})
        self.apply("signal", {"os": {"name": "linux"}, "terminationGracePeriodSeconds": 60, "volumes": [volume], "containers": [main]})
        self.wait_ready("signal")
        self.assertEqual(self.node.container("signal", "main").get("stopSignal"), "SIGUSR1")
        self.node.remove("signal")
        self.node.wait(lambda: self.lines("signal"), "the container has been told")
        self.assertEqual(self.lines("signal"), ["usr1"])

    def test_sidecars_end_after_the_others_the_last_one_first(self):
        volume, mount = self.in_directory()
        sidecars = [container(name, UNTIL_TERM.format(name), restartPolicy="Always", volumeMounts=[mount]) for name in ("one", "two")]
        self.apply("ends", {"terminationGracePeriodSeconds": 60, "volumes": [volume], "initContainers": sidecars,
                            "containers": [container("main", UNTIL_TERM.format("main"), volumeMounts=[mount])]})
        self.wait_ready("ends")
        self.node.remove("ends")
        self.node.wait(lambda: len(self.lines("order")) == 3, lambda: f"all have ended: {self.lines('order')}")
        self.assertEqual(self.lines("order"), ["main", "two", "one"])

    def test_job_with_a_sidecar_ends(self):
        sidecar = container("sidecar", "trap 'exit 0' TERM; sleep 1000 & wait", restartPolicy="Always")
        self.apply("job", {"restartPolicy": "Never", "initContainers": [sidecar], "containers": [container("main", "echo done")]})
        self.wait_phase("job", "Succeeded")
        self.assertEqual(self.node.container("job", "sidecar")["state"]["terminated"]["exitCode"], 0)


class Restarts(PodCase):
    def test_exit_codes_and_restarts(self):
        self.apply("fails", {"restartPolicy": "OnFailure", "containers": [container("main", "exit 7"), container("done", "exit 0")]})
        self.wait_for_reason("fails", "done", "terminated", reason="Completed", exitCode=0)
        self.wait_restarted("fails", "main")
        self.wait_for_reason("fails", "main", "terminated", reason="Error", exitCode=7)
        self.assertEqual(self.node.container("fails", "done")["restartCount"], 0)

    def test_always_is_always_and_never_is_never(self):
        self.apply("always", {"containers": [container("main", "exit 0")]})
        self.apply("never", {"restartPolicy": "Never", "containers": [container("main", "sleep 1000 & kill -KILL $!; wait $!"), container("done", "exit 0")]})
        self.wait_restarted("always", "main", 3)
        self.wait_phase("never", "Failed")
        self.wait_for_reason("never", "main", "terminated", exitCode=137)
        self.assertEqual(self.node.container("never", "main")["restartCount"], 0)

    def test_rules_of_a_container_decide_by_its_exit_code(self):
        volume, mount = self.in_directory()
        rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
        main = container("main", "echo x >> /gate/begun; [ $(wc -l < /gate/begun) -ge 3 ] && exit 5; exit 42", restartPolicy="Never",
                         restartPolicyRules=[rule], volumeMounts=[mount])
        self.apply("rules", {"restartPolicy": "Never", "volumes": [volume], "containers": [main]})
        self.wait_phase("rules", "Failed")
        found = self.node.container("rules", "main")
        self.assertEqual((found["restartCount"], found["state"]["terminated"]["exitCode"]), (2, 5))
        self.assertEqual(len(self.lines("begun")), 3)

    def test_rule_restarts_the_whole_pod(self):
        volume, mount = self.in_directory()
        rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [43]}}
        init = container("init", "echo init >> /gate/begun", volumeMounts=[mount])
        main = container("main", "[ $(wc -l < /gate/begun) -ge 2 ] && exec sleep 1000; until [ -e /gate/calm ]; do usleep 100000; done; exit 43",
                         restartPolicy="Never", restartPolicyRules=[rule], volumeMounts=[mount])
        calm = container("calm", "touch /gate/calm; exec sleep 1000", volumeMounts=[mount])
        self.apply("whole", {"restartPolicy": "Never", "volumes": [volume], "initContainers": [init], "containers": [main, calm]})
        self.node.wait(lambda: len(self.lines("begun")) == 2, lambda: f"the init container runs again: {self.node.pod('whole')}")
        self.wait_restarted("whole", "calm")
        self.wait_ready("whole")
