#!/usr/bin/env python3
"""Runs a cluster of one node on moatd, in namespaces of its own, and the tests of it. As root.

    e2e/cluster/run.py [--write] [PATTERN...]     every test, or those whose name contains a pattern

FAST=1 runs a choice of them in a minute and a half. --write puts the results into docs/cluster.md.
"""

import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "images")]

import case  # noqa: E402
import cluster as clusters  # noqa: E402
import dns_test  # noqa: E402
import eviction_test  # noqa: E402
import figures_test  # noqa: E402
import harness  # noqa: E402
import kubectl_test  # noqa: E402
import mkimage  # noqa: E402
import pods_test  # noqa: E402
import restart_test  # noqa: E402
import services_test  # noqa: E402
import workloads_test  # noqa: E402
from node import IMAGE  # noqa: E402

MODULES = [workloads_test, pods_test, kubectl_test, services_test, dns_test, figures_test, restart_test, eviction_test]
FAST = [
    "workloads_test.OnMoat.test_job_completes", "pods_test.OnMoat.test_config_maps", "SideBySide.test_both", "OnMoat.test_run_and_exec",
    "OnNative.test_run_and_exec", "OnMoat.test_exec_on_a_terminal", "OnMoat.test_logs_of_two_lives", "OnMoat.test_port_forward",
    "OnMoat.test_debug", "test_cluster_address", "test_moatd_killed",
]
PAGE = os.path.join(harness.ROOT, "docs", "cluster.md")


def main():
    patterns = [a for a in sys.argv[1:] if not a.startswith("-")]
    fast = os.environ.get("FAST") == "1" and not patterns
    if harness.INSIDE not in os.environ:
        clusters.prepare(dns=not fast)
        return harness.enter()
    harness.settle()
    began = time.monotonic()
    cluster = clusters.Cluster(tempfile.mkdtemp(dir=harness.scratch()))
    record = []
    try:
        cluster.start({IMAGE: mkimage.busybox()})
        ready = time.monotonic() - began
        print(f"      the node is ready after {ready:.1f} s", flush=True)
        case.use(cluster)
        case.warm_up()
        passed, failed, skipped = harness.run_modules(MODULES, FAST if fast else patterns, record)
    finally:
        status = cluster.stop()
        keep_logs(cluster.directory)
    if status != 0:
        failed += 1
        print(f"FAIL  moatd's exit status {status}; its log:\n{cluster.log('moatd')}")
    if "--write" in sys.argv:
        write_page(record, ready, time.monotonic() - began)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


def keep_logs(directory):
    target = os.path.join(harness.BUILD_ROOT, "test-logs", "cluster")
    os.makedirs(target, exist_ok=True)
    for name in os.listdir(directory):
        if name.endswith(".log"):
            shutil.copy(os.path.join(directory, name), target)


def words(test):
    """test_moatd_killed -> moatd killed."""
    return re.sub("^test ", "", test.rpartition(".")[2].replace("_", " "))


def write_page(record, ready, seconds):
    last = {}  # a test that ran twice counts by its last run
    for word, test, took, reason in record:
        last[test] = (word, took, reason)
    rows = {}
    for test, (word, took, reason) in last.items():
        module, class_name, _ = test.split(".", 2)
        column = {"OnMoat": "moat", "OnNative": "native"}.get(class_name, "both")
        rows.setdefault(module.removesuffix("_test"), {}).setdefault(words(test), {})[column] = (word, took, reason)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=harness.ROOT, capture_output=True, text=True, check=False).stdout.strip()
    count = {word: sum(1 for w, _, _ in last.values() if w == word) for word in ("ok", "FAIL", "skip")}
    lines = [
        "# A cluster on one node", "",
        f"Written by `make e2e-cluster WRITE=1` on {datetime.date.today()}, commit {commit}, {os.cpu_count()} CPUs, Linux {os.uname().release}: "
        f"Kubernetes {kubernetes_version()} and Debian's etcd on moatd, kube-proxy in its nftables mode. "
        f"The node is ready after {ready:.0f} s; {count['ok']} passed, {count['FAIL']} failed, {count['skip']} skipped in {seconds:.0f} s. "
        "Seconds are those of a test with all its waiting; each also looks for what it left behind.", ""]
    for area, tests in rows.items():
        lines += [f"## {area.capitalize()}", "", "| test | moat | native | the cluster |", "| --- | --- | --- | --- |"]
        for name, columns in tests.items():
            lines.append(f"| {name} | " + " | ".join(cell(columns.get(c)) for c in ("moat", "native", "both")) + " |")
        lines.append("")
    with open(PAGE, "w", encoding="utf-8") as out:
        out.write("\n".join(lines).rstrip() + "\n")


def cell(result):
    if not result:
        return ""
    word, took, reason = result
    return {"ok": f"{took:.1f} s", "FAIL": "**failed**"}.get(word, "skipped: " + reason)


def kubernetes_version():
    with open(os.path.join(harness.ROOT, "e2e", "tools", "kubernetes", "go.mod"), encoding="utf-8") as source:
        return re.search(r"k8s\.io/kubernetes (v\S+)", source.read()).group(1)


if __name__ == "__main__":
    sys.exit(main())
