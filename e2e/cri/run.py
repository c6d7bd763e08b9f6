#!/usr/bin/env python3
"""Drives moatd over CRI: by the library that kubelet uses (the Go tests here) and by crictl. As root.

    e2e/cri/run.py [PATTERN...]                 every test, or those whose name contains a pattern
    REFERENCE=DIR e2e/cri/run.py                the Go tests against containerd, whose programs are in DIR

What containerd fails is wrong here, or is skipped there with its reason.
"""

import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]

import crictl_test  # noqa: E402
import harness  # noqa: E402

TESTS = os.path.join(harness.BUILD_ROOT, "tools", "cri.test")


def prepare():
    """With the machine's network and caches at hand: the test program, crictl, a registry."""
    os.makedirs(os.path.dirname(TESTS), exist_ok=True)
    if not any(os.access(os.path.join(d, "go"), os.X_OK) for d in os.environ["PATH"].split(":")):
        os.environ["PATH"] += ":/usr/local/go/bin"
    subprocess.run(["go", "test", "-c", "-o", TESTS, "."], cwd=HERE, check=True, env={**os.environ, "CGO_ENABLED": "0"})
    os.environ["MOAT_CRICTL"] = harness.script("go-tool.sh", "crictl")
    os.environ["MOAT_RUNC"] = harness.script("go-tool.sh", "runc")
    os.environ["MOAT_REGISTRY"] = harness.script("debian-tool.sh", "docker-registry")
    os.environ["MOAT_REFERENCE"] = os.environ.get("REFERENCE", "")
    os.environ["MOAT_BUILD"] = harness.BUILD
    os.environ["MOAT_ROOT"] = harness.ROOT


def go_tests(patterns, retry=True):
    """Runs the Go program. Returns (passed, failed, skipped) of its top-level tests."""
    only = ["-test.run", "|".join(patterns)] if patterns else []
    process = subprocess.Popen([TESTS, "-test.v", "-test.timeout", "900s", *only], cwd=HERE, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}
    bad = []
    for line in process.stdout:
        match = re.match(r"--- (PASS|FAIL|SKIP): (\S+)", line)
        if match:
            counts[match.group(1)] += 1
            if match.group(1) == "FAIL":
                bad.append(match.group(2))
        if not line.startswith("=== "):
            print(line, end="", flush=True)
    status = process.wait()
    if status != 0 and counts["FAIL"] == 0:
        print(f"the Go tests ended with status {status}")
        counts["FAIL"] = 1
    if 0 < len(bad) <= 5 and retry:
        # As in harness.run_modules(): once more, and named.
        print(f"a second time: {', '.join(bad)}", flush=True)
        passed, failed, _ = go_tests([f"^{name}$" for name in bad], retry=False)
        counts["PASS"] += passed
        counts["FAIL"] += failed - len(bad)
    return counts["PASS"], counts["FAIL"], counts["SKIP"]


def main():
    if harness.INSIDE not in os.environ:
        prepare()
        return harness.enter()
    harness.settle()
    patterns = sys.argv[1:]
    passed, failed, skipped = go_tests(patterns)
    if not os.environ["MOAT_REFERENCE"]:
        more = harness.run_modules([crictl_test], patterns)
        passed, failed, skipped = passed + more[0], failed + more[1], skipped + more[2]
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
