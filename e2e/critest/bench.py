#!/usr/bin/env python3
"""Runs critest's benchmarks on containerd with runc and on both handlers of moatd, in one run. As root.

    e2e/critest/bench.py [--passes N] [--samples N] [--only NAME]... [--write]

The servers run side by side on one stage (stage.py): the same images from a registry on loopback, the same
CNI configuration, pods with namespaces of their own. Passes are interleaved: each pass runs the benchmarks
on every server once, and begins with another one, so that a slow minute of the machine hits all. What
counts is the ratio to containerd of this run: of the best pass's medians, and of the medians of all samples.
--write puts both into docs/bench-cri.md. The exit status is 1 if something did not run, whatever the figures.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "images")]

import harness  # noqa: E402
import host  # noqa: E402
import page  # noqa: E402
import stage  # noqa: E402

GOAL = 0.7
REFERENCE = "containerd"
CONTESTANTS = (REFERENCE, "moat", "native")
PULLED = "registry.k8s.io/e2e-test-images/nginx:1.14-2"
LISTED = ["registry.k8s.io/e2e-test-images/busybox:1.29-2", "registry.k8s.io/e2e-test-images/httpd:2.4.39-4",
          "registry.k8s.io/pause:3.9", "gcr.io/k8s-staging-cri-tools/test-image-1:latest", PULLED]
# In the order of the page; critest's own names.
OPERATIONS = ("CreatePod", "StatusPod", "StopPod", "RemovePod", "CreateContainer", "StartContainer", "StatusContainer", "StopContainer",
              "RemoveContainer", "PullImage", "StatusImage", "RemoveImage", "ListImages")


def run_benchmarks(directory, endpoint, handler, samples, seed):
    """One pass of critest's benchmarks. Returns {operation: [milliseconds]}."""
    if os.path.exists(directory):
        shutil.rmtree(directory)
    os.makedirs(directory)
    config = os.path.join(directory, "crictl.yaml")
    with open(config, "w", encoding="ascii") as out:
        out.write(f"runtime-endpoint: unix://{endpoint}\nimage-endpoint: unix://{endpoint}\n")
    parameters = os.path.join(directory, "parameters.yaml")
    with open(parameters, "w", encoding="ascii") as out:
        json.dump({"podsNumber": samples, "podsNumberParallel": 1, "containersNumber": samples, "containersNumberParallel": 1,
                   "imagesNumber": samples, "imagesNumberParallel": 1, "imagePullingBenchmarkImage": PULLED,
                   "imageListingBenchmarkImages": LISTED, "podContainerStartBenchmarkTimeoutSeconds": 60}, out)
    log_path = os.path.join(directory, "log")
    with open(log_path, "wb") as log:
        status = subprocess.run([
            os.environ["MOAT_CRITEST"], "-benchmark", "-benchmarking-params-file", parameters, "-benchmarking-output-dir", directory,
            "-config", config, "-runtime-endpoint", "unix://" + endpoint, "-image-endpoint", "unix://" + endpoint,
            "-runtime-handler", handler, f"-ginkgo.seed={seed}", "-ginkgo.no-color",
        ], cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=900, check=False).returncode
    if status != 0:
        raise RuntimeError(f"critest ended with status {status}; its log:\n{host.read(log_path)[-4000:]}")
    times = {}
    for name in os.listdir(directory):
        if name.endswith("_benchmark_data.json"):
            with open(os.path.join(directory, name), encoding="utf-8") as source:
                data = json.load(source)
            for point in data["datapoints"]:
                for operation, nanoseconds in zip(data["operationsNames"], point["operationsDurationsNs"]):
                    times.setdefault(operation, []).append(nanoseconds / 1e6)
    missing = [o for o in OPERATIONS if len(times.get(o, [])) != samples]
    if missing:
        raise RuntimeError(f"critest gave no {samples} samples of {', '.join(missing)}")
    return times


class Figures:
    """Of one contestant: {operation: [[milliseconds of a pass]]}."""

    def __init__(self):
        self.passes = {o: [] for o in OPERATIONS}

    def add(self, times):
        for operation in OPERATIONS:
            self.passes[operation].append(times[operation])

    def median(self, operation):
        return statistics.median(ms for one in self.passes[operation] for ms in one)

    def best(self, operation):
        return min(statistics.median(one) for one in self.passes[operation])


def table(figures):
    """The page's rows: milliseconds and, for moat's handlers, the ratios to containerd."""
    names = [n for n in CONTESTANTS if n in figures]
    reference = figures.get(REFERENCE)
    rows = ["| median of all, best pass, ms | " + " | ".join(names) + "".join(f" | {n}: ratio" for n in names if n != REFERENCE and reference) + " |",
            "| --- " * (1 + len(names) + (len(names) - 1 if reference else 0)) + "|"]
    missed = []
    for operation in OPERATIONS:
        cells = [f"{figures[n].median(operation):.2f}, {figures[n].best(operation):.2f}" for n in names]
        for name in names if reference else ():
            if name != REFERENCE:
                of_all = figures[name].median(operation) / reference.median(operation)
                of_best = figures[name].best(operation) / reference.best(operation)
                missed += [f"{name} {operation}"] if max(of_all, of_best) > GOAL else []
                cells.append(f"{of_all:.2f}, {of_best:.2f}")
        rows.append(f"| {operation} | " + " | ".join(cells) + " |")
    return rows, missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--samples", type=int, default=20, help="of each operation in a pass")
    parser.add_argument("--only", action="append", choices=CONTESTANTS)
    parser.add_argument("--write", action="store_true", help="the figures into docs/bench-cri.md")
    options = parser.parse_args()
    if harness.INSIDE not in os.environ:
        stage.prepare(with_containerd=True)
        return stage.enter()
    harness.settle()
    directory = harness.scratch()
    stage.hide_cni_state()
    names = options.only or list(CONTESTANTS)
    services = [stage.start_registry(directory)]
    endpoints = {}
    if REFERENCE in names:
        service, endpoints[REFERENCE] = stage.start_containerd(os.path.join(directory, "c"))
        services.append(service)
    if {"moat", "native"} & set(names):
        os.makedirs(os.path.join(directory, "m"))
        service, endpoint = stage.start_moatd(os.path.join(directory, "m"), with_cni=True)
        services.append(service)
        endpoints.update({"moat": endpoint, "native": endpoint})
    figures = {n: Figures() for n in names}
    loads = [os.getloadavg()[0]]
    try:
        for number in range(options.passes):
            for name in names[number % len(names):] + names[:number % len(names)]:
                began = time.monotonic()
                times = run_benchmarks(os.path.join(directory, "b"), endpoints[name], "runc" if name == REFERENCE else name,
                                       options.samples, seed=number + 1)
                figures[name].add(times)
                loads.append(os.getloadavg()[0])
                print(f"pass {number + 1}, {name} ({time.monotonic() - began:.0f} s, load {loads[-1]:.1f}): "
                      + ", ".join(f"{o} {statistics.median(times[o]):.1f}" for o in OPERATIONS), flush=True)
    finally:
        os.makedirs(os.path.join(harness.BUILD_ROOT, "test-logs"), exist_ok=True)
        for service in reversed(services):
            service.stop()
            shutil.copy(service.log_path, os.path.join(harness.BUILD_ROOT, "test-logs", f"bench-cri-{service.name}.log"))
    rows, missed = table(figures)
    print("\n".join(rows))
    print(f"above {GOAL} of {REFERENCE}: {', '.join(missed) or 'nothing'}")
    if options.write:
        page.write("critest", [
            f"{datetime.date.today()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}, {options.passes} passes of {options.samples} samples, "
            f"interleaved; load average during the run {min(loads):.1f} to {max(loads):.1f}.", "", *rows, "",
            f"Above {GOAL} of containerd's: {', '.join(missed) or 'nothing'}."])
    return 0


if __name__ == "__main__":
    sys.exit(main())
