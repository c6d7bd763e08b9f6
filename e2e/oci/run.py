#!/usr/bin/env python3
"""Drives moat by its OCI command line on bundles. As root.

    e2e/oci/run.py [PATTERN...]     every test, or those whose name contains a pattern
    RUNTIME=runc e2e/oci/run.py     the reference: what runc fails is wrong here

Tests of what only moat has are skipped, with that reason, when the runtime is another.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]

import bad_input_test  # noqa: E402
import debian_test  # noqa: E402
import harness  # noqa: E402
import hostile_test  # noqa: E402
import kills_test  # noqa: E402
import lifecycle_test  # noqa: E402
import pods_test  # noqa: E402
import seccomp_test  # noqa: E402


def prepare():
    harness.busybox_root()
    harness.debian_root()


if __name__ == "__main__":
    sys.exit(harness.main([lifecycle_test, debian_test, pods_test, bad_input_test, kills_test, hostile_test, seccomp_test], prepare))
