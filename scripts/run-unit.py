#!/usr/bin/env python3
"""run-unit.py BUILDDIR: runs the unit tests by ctest and counts their cases.

Every ctest entry counts that is not a guest test (those have the label `guest` and a runner of their own).
A doctest binary counts with its cases; any other entry, and one that crashed, counts as one.
"""

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

CASES = re.compile(r"test cases:\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed\s*\|\s*(\d+) skipped")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def main():
    if len(sys.argv) != 2:
        print(__doc__.split("\n")[0], file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        report = os.path.join(directory, "junit.xml")
        ctest = subprocess.run(
            ["ctest", "--test-dir", sys.argv[1], "--label-exclude", "guest", "--output-junit", report,
             "--output-on-failure", "--timeout", "300", "--no-tests=error", "-j", str(os.cpu_count() or 1),
             "--test-output-size-passed", "100000", "--test-output-size-failed", "1000000"])
        if not os.path.exists(report):
            return 1
        suite = ElementTree.parse(report).getroot()
    passed = failed = skipped = 0
    for case in suite.iter("testcase"):
        output = COLOUR.sub("", case.findtext("system-out") or "")
        counts = CASES.findall(output)
        status = case.get("status")
        if status == "run" and counts:
            passed += sum(int(c[1]) for c in counts)
            skipped += sum(int(c[3]) for c in counts)
        elif status == "run":
            passed += 1
        elif status == "fail":
            bad = sum(int(c[2]) for c in counts)
            passed += sum(int(c[1]) for c in counts)
            failed += max(bad, 1)
        else:
            print(f"skipped: {case.get('name')} ({status})")
            skipped += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or ctest.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
