#!/usr/bin/env python3
"""Runs test suites one after the other and adds up their results.

    run-suites.py SUITE...        unit syscalls-linux syscalls-sentry syscalls-traced oci programs cri critest kubelet cluster
    run-suites.py --list
    run-suites.py --step NAME -- COMMAND...   any command as one test of that name
    run-suites.py --sum        the sum of the results that are in build/results

A suite's last line of the form `N passed, N failed[, N skipped]` is its result. A suite without such a
line, with a failing exit status but no failure counted, or with nothing passed at all, counts as one
failure: a suite cannot pass by not running. Logs go to build/test-logs/, results to build/results/*.json
(started, seconds, passed, failed, skipped). The last line is the sum.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD_ROOT = os.environ.get("MOAT_BUILD_ROOT", os.path.join(ROOT, "build"))
BUILD = os.path.abspath(os.environ.get("MOAT_BUILD", os.path.join(BUILD_ROOT, "release")))
GUEST_BIN = os.path.join(BUILD, "e2e", "syscalls", "bin")
MOAT = os.path.join(BUILD, "moat")
RESULT = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?")

GUEST_RUNNER = f"{MOAT} do --"
SUITES = {
    "unit": ["python3", "scripts/run-unit.py", BUILD],
    "syscalls-linux": ["python3", "e2e/syscalls/run.py", "--native", GUEST_BIN],
    "syscalls-sentry": ["python3", "e2e/syscalls/run.py", "--via", GUEST_RUNNER, GUEST_BIN],
    # Under strace the sentry answers every call itself, those too that guests else make directly to the host.
    "syscalls-traced": ["python3", "e2e/syscalls/run.py", "--via", f"{MOAT} --strace do --", GUEST_BIN],
    "oci": ["python3", "e2e/oci/run.py"],
    "programs": ["python3", "e2e/programs/run.py"],
    "cri": ["python3", "e2e/cri/run.py"],
    "critest": ["python3", "e2e/critest/run.py"],
    "kubelet": ["python3", "e2e/kubelet/run.py"],
    "cluster": ["env", "FAST=1", "python3", "e2e/cluster/run.py"],
}


def clock():
    return datetime.datetime.now().strftime("%H:%M:%S")


def run(name, command):
    """Runs one suite, its output on ours and in its log. Returns its result as a dict."""
    logs = os.path.join(BUILD_ROOT, "test-logs")
    results = os.path.join(BUILD_ROOT, "results")
    os.makedirs(logs, exist_ok=True)
    os.makedirs(results, exist_ok=True)
    log_path = os.path.join(logs, name + ".log")
    print(f"==> [{clock()}] {name}: {' '.join(command)}", flush=True)
    began = time.monotonic()
    found = None
    with open(log_path, "wb") as log:
        try:
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except OSError as error:
            print(f"    cannot run {command[0]}: {error}")
            process = None
        if process:
            for line in process.stdout:
                log.write(line)
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
                match = RESULT.match(line.decode("utf-8", "replace"))
                found = match or found
            process.wait()
    status = process.returncode if process else 127
    passed, failed, skipped = (int(n or 0) for n in found.groups()) if found else (0, 0, 0)
    note = ""
    if not found:
        failed, note = 1, f"ended without a result line, status {status}"
    elif status != 0 and failed == 0:
        failed, note = 1, f"counted no failure but ended with status {status}"
    elif status == 0 and failed > 0:
        note = "ended with status 0 in spite of failures"
    elif passed == 0 and failed == 0:
        failed, note = 1, "ran nothing"
    result = {"name": name, "seconds": round(time.monotonic() - began, 1), "passed": passed,
              "failed": failed, "skipped": skipped, "note": note, "log": log_path}
    with open(os.path.join(results, name + ".json"), "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
    print(f"<== [{clock()}] {name}: {'FAILED' if failed else 'ok'}, {passed} passed, {failed} failed, "
          f"{skipped} skipped, {result['seconds']:.0f} s{' (' + note + ')' if note else ''}", flush=True)
    return result


def step(name, command):
    """A command whose exit status alone is the verdict."""
    wrapped = ["bash", "-c", '"$@"; s=$?; if [ $s = 0 ]; then echo "1 passed, 0 failed"; '
               'else echo "0 passed, 1 failed"; fi; exit $s', name] + command
    return run(name, wrapped)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--step", metavar="NAME")
    parser.add_argument("--sum", action="store_true")
    options = parser.parse_args()
    if options.list:
        print("\n".join(SUITES))
        return 0
    if options.step:
        return 1 if step(options.step, options.suites)["failed"] else 0
    if options.sum:
        return summary(stored())
    unknown = [s for s in options.suites if s not in SUITES]
    if unknown or not options.suites:
        parser.error(f"no suite {' '.join(unknown)}; there are: {' '.join(SUITES)}")
    results = [run(name, SUITES[name]) for name in options.suites]
    return summary(results)


def stored():
    """Results of earlier runs that are still in build/results, in the order in which they ended."""
    directory = os.path.join(BUILD_ROOT, "results")
    paths = [os.path.join(directory, n) for n in os.listdir(directory)] if os.path.isdir(directory) else []
    results = []
    for path in sorted(paths, key=os.path.getmtime):
        with open(path, encoding="utf-8") as result:
            results.append(json.load(result))
    return results


def summary(results):
    """Prints the table and the sum, the last line. Returns the exit status."""
    print(f"\n{'suite':<18}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for r in results:
        print(f"{r['name']:<18}{r['passed']:>8}{r['failed']:>8}{r['skipped']:>9}{r['seconds']:>9.0f}  {r['note']}")
    passed, failed, skipped = (sum(r[k] for r in results) for k in ("passed", "failed", "skipped"))
    if skipped:
        print(f"{skipped} skipped, each with its reason in its suite's output")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
