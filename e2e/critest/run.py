#!/usr/bin/env python3
"""Runs critest, the CRI's conformance tests, against moatd in namespaces of its own. As root.

    e2e/critest/run.py [--handler NAME]... [--focus REGEX] [--write] [--cni] [--reference]

Each handler is a run of critest's specs over SPDY, and one of its streaming specs over WebSocket. What is
expected not to pass is in expectations.txt, one line a spec with its reason; a listed spec that passes
fails the run, as does a spec that fails or is skipped without being listed. --write puts the results into
the README. --reference runs containerd with runc instead, on the same stage: its results are the README's
last rows, and nobody judges them.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "images")]

import harness  # noqa: E402
import host  # noqa: E402
import stage  # noqa: E402

EXPECTATIONS = os.path.join(HERE, "expectations.txt")
README = os.path.join(harness.ROOT, "README.md")
HANDLERS = ("moat", "native")
WEBSOCKET = ["-websocket-exec", "-websocket-attach", "-websocket-portforward", "-ginkgo.focus=Streaming"]
SECONDS = 900  # the most that one run of critest may take


class Spec:
    def __init__(self, report):
        texts = [*(report["ContainerHierarchyTexts"] or []), report["LeafNodeText"]]
        self.name = re.sub(r"^\[k8s.io\] ", "", " ".join(texts).strip())
        self.state = report["State"]
        self.seconds = report["RunTime"] / 1e9
        self.message = (report.get("Failure") or {}).get("Message", "").strip()


def run_critest(directory, endpoint, handler, label, more):
    """Returns the specs that this run was about."""
    config = os.path.join(directory, "crictl.yaml")
    with open(config, "w", encoding="ascii") as out:
        out.write(f"runtime-endpoint: unix://{endpoint}\nimage-endpoint: unix://{endpoint}\n")
    report = os.path.join(directory, label + ".json")
    log_path = os.path.join(harness.BUILD_ROOT, "test-logs", f"critest-{label}.log")
    os.makedirs(os.path.dirname(log_path), exist_ok=True)
    with open(log_path, "wb") as log:
        subprocess.run([
            os.environ["MOAT_CRITEST"], "-config", config, "-runtime-endpoint", "unix://" + endpoint, "-image-endpoint", "unix://" + endpoint,
            "-runtime-handler", handler, "-ginkgo.seed=1", "-ginkgo.no-color", f"-ginkgo.json-report={report}", *more,
        ], cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=SECONDS, check=False)
    if not os.path.exists(report):
        sys.exit(f"critest ended without a report; its log:\n{host.read(log_path)[-3000:]}")
    with open(report, encoding="utf-8") as source:
        specs = [Spec(r) for suite in json.load(source) for r in suite["SpecReports"] or [] if r["LeafNodeType"] == "It"]
    # A spec outside the focus, and the benchmarks, are "skipped" without a word; those that skip themselves say why.
    return [s for s in specs if not (s.state == "skipped" and not s.message)]


def read_expectations():
    """{(handler, spec): (state, reason)}; handler is a label, with `-websocket` behind it for that run."""
    expected = {}
    with open(EXPECTATIONS, encoding="utf-8") as source:
        for number, line in enumerate(source, 1):
            if line.strip() and not line.startswith("#"):
                fields = [f.strip() for f in line.split("|")]
                if len(fields) != 4 or fields[1] not in ("failed", "skipped"):
                    sys.exit(f"{EXPECTATIONS}:{number}: wanted: handler | failed or skipped | spec | reason")
                for label in HANDLERS if fields[0] == "all" else [fields[0]]:
                    expected[(label, fields[2])] = (fields[1], fields[3])
    return expected


def judge(label, specs, expected, whole):
    """Prints what is not as expected. Returns (passed, failed, skipped)."""
    passed = failed = skipped = 0
    known = {name: what for (where, name), what in expected.items() if where == label}
    for spec in specs:
        wanted, reason = known.pop(spec.name, ("passed", ""))
        state = spec.state if spec.state in ("passed", "skipped") else "failed"
        if state != wanted:
            failed += 1
            print(f"FAIL  {label}: {spec.name} ({spec.seconds:.1f} s): {state}, expected: {wanted} {reason}")
            print("      " + spec.message[:1500].replace("\n", "\n      "), flush=True)
        elif state == "passed":
            passed += 1
        else:
            skipped += 1
            print(f"skip  {label}: {spec.name}: {state}, as expected: {reason}")
    for name in known if whole else ():
        failed += 1
        print(f"FAIL  {label}: {name}: listed in expectations.txt, but there is no such spec")
    return passed, failed, skipped


def write_table(results):
    """The README's table, between its two markers. Rows of what did not run now stay."""
    fresh = {}
    for label, specs, seconds in results:
        count = {state: sum(s.state == state for s in specs) for state in ("passed", "skipped")}
        bad = len(specs) - count["passed"] - count["skipped"]
        fresh[label] = f"| {label} | {count['passed']} | {bad} | {count['skipped']} | {seconds:.0f} |"
    with open(README, encoding="utf-8") as source:
        text = source.read()
    begin, end = "<!-- critest: written by make check-critest WRITE=1 -->\n", "<!-- critest: end -->\n"
    head, _, rest = text.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        sys.exit(f"{README}: the markers of the table are missing")
    title, line, *old = rest.split(end)[0].splitlines()
    rows = [fresh.pop(row.split("|")[1].strip(), row) for row in old]
    rows = [title, line, *rows, *fresh.values()]
    with open(README, "w", encoding="utf-8") as out:
        out.write(head + begin + "\n".join(rows) + "\n" + end + tail)


def reference(directory, options):
    """containerd's results; Debian's CNI plugins, since it has no network of its own."""
    stage.hide_cni_state()
    registry = stage.start_registry(directory)
    runtime, endpoint = stage.start_containerd(os.path.join(directory, "c"))
    results = []
    for label, more in (("containerd, runc", []), ("containerd, runc, websocket", WEBSOCKET)):
        began = time.monotonic()
        specs = run_critest(directory, endpoint, "runc", label.replace(", ", "-"), more)
        results.append((label, specs, time.monotonic() - began))
        for spec in specs:
            if spec.state != "passed":
                print(f"{spec.state}  {label}: {spec.name}: {spec.message[:300]}", flush=True)
        states = [spec.state for spec in specs]
        print(f"      {label}: {states.count('passed')} of {len(states)} passed, {results[-1][2]:.0f} s", flush=True)
    runtime.stop()
    registry.stop()
    if options.write:
        write_table(results)
    print(f"{sum(s.state == 'passed' for _, specs, _ in results for s in specs)} passed, 0 failed", flush=True)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--handler", action="append", choices=HANDLERS)
    parser.add_argument("--focus", help="only the specs whose names match")
    parser.add_argument("--write", action="store_true", help="the results into the README")
    parser.add_argument("--cni", action="store_true", help="Debian's CNI plugins instead of the built-in network")
    parser.add_argument("--reference", action="store_true", help="containerd instead of moatd")
    options = parser.parse_args()
    if harness.INSIDE not in os.environ:
        stage.prepare(with_containerd=options.reference)
        return stage.enter() if options.reference else harness.enter()
    harness.settle()
    directory = harness.scratch()
    if options.reference:
        return reference(directory, options)
    expected = read_expectations()
    registry = stage.start_registry(directory)
    runtime, endpoint = stage.start_moatd(directory, options.cni)
    before = host.Snapshot(harness.cgroup())
    total = [0, 0, 0]
    results = []
    for handler in options.handler or HANDLERS:
        runs = [(handler, [])] if not options.focus else [(handler, ["-ginkgo.focus=" + options.focus])]
        if not options.focus or re.search(options.focus, "Streaming"):
            runs.append((handler + "-websocket", WEBSOCKET))
        for label, more in runs:
            began = time.monotonic()
            specs = run_critest(directory, endpoint, handler, label, more)
            results.append((label, specs, time.monotonic() - began))
            counts = judge(label, specs, expected, whole=not options.focus)
            print(f"      {label}: {counts[0]} as expected, {counts[1]} not, {counts[2]} expected not to pass, "
                  f"{results[-1][2]:.0f} s", flush=True)
            total = [a + b for a, b in zip(total, counts)]
    leaks = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        # A spec that fails leaves its own mounts behind.
        leaks = [line for line in host.Snapshot(harness.cgroup()).more_than(before) if "mount /tmp/test" not in line]
        if not leaks:
            break
        time.sleep(0.1)
    if leaks:
        total[1] += 1
        print("FAIL  left behind:\n      " + "\n      ".join(map(str, leaks)))
    if runtime.stop() != 0:
        total[1] += 1
        print(f"FAIL  moatd did not end well; its log:\n{host.read(runtime.log_path)[-3000:]}")
    subprocess.run(["cp", runtime.log_path, os.path.join(harness.BUILD_ROOT, "test-logs", "critest-moatd.log")], check=False)
    registry.stop()
    if options.write:
        write_table(results)
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped", flush=True)
    return 1 if total[1] or not total[0] else 0


if __name__ == "__main__":
    sys.exit(main())
