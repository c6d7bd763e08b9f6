#!/usr/bin/env python3
"""Many pods at once: made, looked at and removed by several clients, on both handlers and on containerd. As root.

    e2e/cri/stress.py [--pods N] [--clients N] [--write]

The test is TestACrowdOfPods (crowd_test.go), which checks every state on the way and what is left; CI runs
a small one. All pods are there at once between the making and the removing. --write puts its figures into
docs/bench-cri.md. The exit status is 1 if it fails on moatd.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

import harness  # noqa: E402
import page  # noqa: E402

TEST = "^TestACrowdOfPods$"


def run(report, reference=""):
    """One run of the suite; returns whether it passed and its figures, one dict a handler."""
    status = subprocess.run([os.path.join(HERE, "run.py"), TEST],
                            env={**os.environ, "MOAT_STRESS_REPORT": report, "REFERENCE": reference}, check=False).returncode
    with open(report, encoding="utf-8") as source:
        figures = [json.loads(line) for line in source]
    os.truncate(report, 0)
    if reference:
        for one in figures:
            one["handler"] = "containerd"
    return status == 0, figures


def rows(figures):
    names = [f["handler"] for f in figures]
    lines = ["| p50, p99, most, ms | " + " | ".join(names) + " |", "| --- " * (1 + len(names)) + "|",
             "| all made, all removed, s | " + " | ".join(f"{f['made']:.1f}, {f['unmade']:.1f}" for f in figures) + " |"]
    for rpc in [line["RPC"] for line in figures[0]["figures"]]:
        cells = []
        for one in figures:
            line = next((x for x in one["figures"] if x["RPC"] == rpc), None)
            cells.append(f"{line['P50']:.1f}, {line['P99']:.1f}, {line['Max']:.1f}" if line else "")
        lines.append(f"| {rpc} | " + " | ".join(cells) + " |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pods", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--write", action="store_true", help="the figures into docs/bench-cri.md")
    options = parser.parse_args()
    os.environ["MOAT_STRESS_PODS"] = str(options.pods)
    os.environ["MOAT_STRESS_CLIENTS"] = str(options.clients)
    load = os.getloadavg()[0]
    with tempfile.NamedTemporaryFile() as report, tempfile.TemporaryDirectory() as programs:
        passed, figures = run(report.name)
        for name in ("containerd", "containerd-shim-runc-v2", "runc"):
            os.symlink(harness.script("go-tool.sh", name), os.path.join(programs, name))
        figures += run(report.name, programs)[1]
    table = rows(figures)
    print("\n".join(table))
    if options.write and passed:
        page.write("stress", [
            f"{datetime.date.today()}, {os.cpu_count()} CPUs, {options.pods} pods by {options.clients} clients; load average before "
            f"{load:.1f}, behind {os.getloadavg()[0]:.1f}.", "", *table])
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
