#!/usr/bin/env python3
"""Runs kubelet on moatd, with static pods, in namespaces of its own. As root.

    e2e/kubelet/run.py [PATTERN...]     every test, or those whose name contains a pattern
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "images")]

import harness  # noqa: E402
import kubelet_test  # noqa: E402
import node  # noqa: E402


if __name__ == "__main__":
    sys.exit(harness.main([kubelet_test], node.prepare))
