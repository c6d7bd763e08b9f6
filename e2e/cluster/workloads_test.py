"""What controllers make of pods: Deployments, Jobs, DaemonSets, CronJobs."""

import json

from case import Case, container, web
from cluster import condition


class Workloads:
    def deployment(self, name, replicas, pod):
        pod["metadata"]["labels"] = {"app": name}
        return self.create("Deployment", name, "apps/v1", spec={
            "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pod,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}})

    def rolled_out(self, name):
        self.kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")

    def test_deployment_scaled_updated_rolled_back_and_deleted(self):
        self.deployment("web", 2, self.template([web("one")]))
        self.rolled_out("web")
        first = {p["metadata"]["name"] for p in self.pods_of("app=web")}
        self.assertEqual(len(first), 2)
        self.kubectl("scale", "deployment/web", "--replicas=4")
        self.rolled_out("web")
        scaled = {p["metadata"]["name"] for p in self.pods_of("app=web")}
        self.assertEqual(len(scaled), 4)
        self.assertLess(first, scaled)
        addresses = {p["status"]["podIP"] for p in self.pods_of("app=web")}
        self.assertEqual(len(addresses), 4)
        self.kubectl("scale", "deployment/web", "--replicas=2")
        self.wait(lambda: len(self.cluster.list("Pod", "app=web")) == 2, "two pods")
        kept = {p["metadata"]["name"] for p in self.pods_of("app=web")}
        change = {"spec": {"template": {"spec": {"containers": [web("two")]}}}}
        self.kubectl("patch", "deployment/web", "-p", json.dumps(change))
        self.rolled_out("web")
        self.wait(lambda: len(self.cluster.list("Pod", "app=web")) == 2, "the old pods are gone")
        updated = {p["metadata"]["name"] for p in self.pods_of("app=web")}
        self.assertFalse(kept & updated)
        for name in updated:
            self.assertEqual(self.in_pod(name, "wget -q -O - http://127.0.0.1/"), "two\n")
        self.kubectl("rollout", "undo", "deployment/web")
        self.rolled_out("web")
        self.assertEqual(self.in_pod("deployment/web", "wget -q -O - http://127.0.0.1/"), "one\n")
        self.kubectl("delete", "deployment/web", "--timeout=60s")
        self.wait(lambda: not self.cluster.list("Pod", "app=web"), "its pods are gone")

    def test_thirty_pods_come_and_go_at_once(self):
        self.deployment("crowd", 30, self.template([web("crowd")]))
        self.kubectl("rollout", "status", "deployment/crowd", "--timeout=240s", seconds=300)
        pods = self.pods_of("app=crowd")
        self.assertEqual(len({p["status"]["podIP"] for p in pods}), 30)
        self.assertEqual({c["restartCount"] for p in pods for c in p["status"]["containerStatuses"]}, {0})
        here, there = pods[0]["metadata"]["name"], [p["status"]["podIP"] for p in pods]
        self.assertEqual(self.in_pod(here, f"for a in {' '.join(there)}; do wget -q -O - http://$a/; done"), "crowd\n" * 30)
        self.kubectl("scale", "deployment/crowd", "--replicas=0")
        self.wait(lambda: not self.cluster.list("Pod", "app=crowd"), "all are gone", 240)

    def test_job_completes_as_often_as_asked(self):
        self.create("Job", "works", "batch/v1", spec={
            "completions": 3, "parallelism": 2, "completionMode": "Indexed",
            "template": self.template([container("main", "echo part $JOB_COMPLETION_INDEX")], restartPolicy="Never")})
        self.kubectl("wait", "--for=condition=Complete", "job/works", "--timeout=90s")
        pods = self.cluster.list("Pod", "job-name=works")
        self.assertEqual(sorted(self.logs(p["metadata"]["name"]) for p in pods), [f"part {i}\n" for i in range(3)])
        self.assertEqual({p["status"]["phase"] for p in pods}, {"Succeeded"})

    def test_job_that_fails_is_tried_again_and_given_up(self):
        self.create("Job", "fails", "batch/v1", spec={
            "backoffLimit": 1, "template": self.template([container("main", "echo tried; exit 7")], restartPolicy="Never")})
        self.wait(lambda: condition(self.cluster.find("Job", "fails"), "Failed") == "True", lambda: f"given up: {self.cluster.find('Job', 'fails')}")
        job = self.cluster.find("Job", "fails")
        self.assertIn("BackoffLimitExceeded", [c.get("reason") for c in job["status"]["conditions"]])
        pods = self.cluster.list("Pod", "job-name=fails")
        self.assertEqual(len(pods), 2)
        for pod in pods:
            ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
            self.assertEqual((ended["exitCode"], ended["reason"]), (7, "Error"))
            self.assertEqual(self.logs(pod["metadata"]["name"]), "tried\n")

    def test_job_whose_container_is_restarted_in_place(self):
        script = "echo again >> /shared/tries; [ $(wc -l < /shared/tries) = 2 ]"
        pod = self.template([container("main", script, volumeMounts=[{"name": "shared", "mountPath": "/shared"}])],
                            restartPolicy="OnFailure", volumes=[{"name": "shared", "emptyDir": {}}])
        self.create("Job", "stubborn", "batch/v1", spec={"template": pod})
        self.kubectl("wait", "--for=condition=Complete", "job/stubborn", "--timeout=90s")
        pods = self.cluster.list("Pod", "job-name=stubborn")
        self.assertEqual([p["status"]["containerStatuses"][0]["restartCount"] for p in pods], [1])

    def test_job_past_its_deadline_is_ended(self):
        self.create("Job", "late", "batch/v1", spec={
            "activeDeadlineSeconds": 2, "template": self.template([container("main", "exec sleep 1000")], restartPolicy="Never")})
        self.wait(lambda: condition(self.cluster.find("Job", "late"), "Failed") == "True", "the job has failed")
        self.wait(lambda: not self.cluster.list("Pod", "job-name=late"), "its pod is gone")

    def test_daemon_set_has_a_pod_on_the_node(self):
        pod = self.template([container("main", "exec sleep 1000")], {"app": "daemon"})
        self.create("DaemonSet", "daemon", "apps/v1", spec={"selector": {"matchLabels": {"app": "daemon"}}, "template": pod})
        self.kubectl("rollout", "status", "daemonset/daemon", "--timeout=90s")
        (pod,) = self.pods_of("app=daemon")
        self.assert_kernel(pod["metadata"]["name"])
        self.kubectl("delete", "pod", pod["metadata"]["name"], "--now")
        self.wait(lambda: any(condition(p, "Ready") == "True" and p["metadata"]["uid"] != pod["metadata"]["uid"] for p in self.pods_of("app=daemon")),
                  "another pod takes its place")

    def test_stateful_set_names_its_pods_and_makes_them_in_order(self):
        pod = self.template([container("main", "echo $HOSTNAME; exec sleep 1000")], {"app": "ordered"})
        self.create("StatefulSet", "ordered", "apps/v1", spec={
            "replicas": 2, "serviceName": "ordered", "selector": {"matchLabels": {"app": "ordered"}}, "template": pod})
        self.kubectl("rollout", "status", "statefulset/ordered", "--timeout=90s")
        self.assertEqual([self.logs(f"ordered-{i}") for i in range(2)], ["ordered-0\n", "ordered-1\n"])
        self.assertLessEqual(*(self.pod(f"ordered-{i}")["status"]["startTime"] for i in range(2)))

    def test_cron_job_by_the_clock(self):
        job = {"template": self.template([container("main", "echo on time")], restartPolicy="Never")}
        self.create("CronJob", "clock", "batch/v1", spec={"schedule": "* * * * *", "jobTemplate": {"spec": job}})
        self.wait(lambda: (self.cluster.find("CronJob", "clock") or {}).get("status", {}).get("lastSuccessfulTime"), "a run that succeeded", 150)

    def test_cron_job_by_hand(self):
        job = {"template": self.template([container("main", "echo by hand")], restartPolicy="Never")}
        self.create("CronJob", "hand", "batch/v1", spec={"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}})
        self.kubectl("create", "job", "--from=cronjob/hand", "now")
        self.addCleanup(self.remove, "Job", "now")
        self.kubectl("wait", "--for=condition=Complete", "job/now", "--timeout=90s")
        self.assertEqual(self.kubectl("logs", "job/now"), "by hand\n")


class OnMoat(Workloads, Case):
    handler = "moat"


class OnNative(Workloads, Case):
    handler = "native"
