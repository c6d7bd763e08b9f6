"""Figures by the node's proxy: what `kubectl top` and Prometheus live on."""

import json
import re

from case import Case, container

SERIES = re.compile(r'^(container_\w+)\{(.*)\} (\S+)(?: \d+)?$')


class Figures(Case):
    def start_worker(self, handler):
        """A container that has 40 MB and a CPU's tenth, beside one that sleeps."""
        self.handler = handler
        eats = container("eats", "dd if=/dev/zero of=/memory/file bs=1M count=40 2>/dev/null; while :; do i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done; usleep 50000; done",
                         volumeMounts=[{"name": "memory", "mountPath": "/memory"}])
        self.run_pod("works-" + handler, eats, container("sleeps", "exec sleep 1000"), volumes=[{"name": "memory", "emptyDir": {"medium": "Memory"}}])

    def summary(self, name):
        pods = self.cluster.through_node("/stats/summary")["pods"]
        return next((p for p in pods if p["podRef"]["name"] == name), None)

    def series(self, name):
        """{(metric, container): the sum of its series} of a pod's /metrics/cadvisor."""
        found = {}
        for line in self.cluster.through_node("/metrics/cadvisor").splitlines():
            match = SERIES.match(line)
            if match:
                labels = dict(re.findall(r'(\w+)="([^"]*)"', match.group(2)))
                if labels.get("pod") == name:
                    key = (match.group(1), labels.get("container", ""))
                    found[key] = found.get(key, 0) + float(match.group(3))
        return found

    def test_summary(self):
        for handler in ("moat", "native"):
            self.start_worker(handler)
        for handler in ("moat", "native"):
            name = "works-" + handler

            def look():
                found = self.summary(name)
                containers = {c["name"]: c for c in (found or {}).get("containers", [])}
                if {"eats", "sleeps"} <= set(containers) and all("usageNanoCores" in c.get("cpu", {}) for c in containers.values()):
                    return found
                return None
            found = self.wait(look, lambda: f"figures of {name}: {json.dumps(self.summary(name))}")
            eats, sleeps = ({c["name"]: c for c in found["containers"]}[n] for n in ("eats", "sleeps"))
            with self.subTest(handler):
                self.assertGreater(eats["cpu"]["usageCoreNanoSeconds"], 5 * sleeps["cpu"]["usageCoreNanoSeconds"])
                self.assertGreater(eats["cpu"]["usageCoreNanoSeconds"], 10_000_000)
                self.assertGreater(found["memory"]["workingSetBytes"], 40 << 20)
                self.assertLess(found["memory"]["workingSetBytes"], 400 << 20)
                self.assertLess(0, sleeps["memory"]["workingSetBytes"])
                self.assertLess(sleeps["memory"]["workingSetBytes"], 20 << 20)
                self.assertGreaterEqual(found["cpu"]["usageCoreNanoSeconds"], eats["cpu"]["usageCoreNanoSeconds"])
                self.assertIn("usedBytes", eats["rootfs"])
                self.assertGreater(found["process_stats"]["process_count"], 1)
                self.assertGreaterEqual(found["network"]["rxBytes"], 0)
                volume = next(v for v in found["volume"] if v["name"] == "memory")
                self.assertGreaterEqual(volume["usedBytes"], 40 << 20)

    def test_cadvisor(self):
        for handler in ("moat", "native"):
            self.start_worker(handler)
        for handler in ("moat", "native"):
            name = "works-" + handler
            wanted = ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes")
            found = self.wait(lambda: all((m, c) in self.series(name) for m in wanted for c in ("eats", "sleeps")) and self.series(name),
                              lambda: f"series of both containers of {name}: {self.series(name)}")
            with self.subTest(handler):
                self.assertGreater(found[wanted[0], "eats"], found[wanted[0], "sleeps"])
                self.assertLess(found[wanted[1], "sleeps"], 20 << 20)
