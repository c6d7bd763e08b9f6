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
import static_node  # noqa: E402


def prepare():
    node.prepare()
    os.environ["MOAT_GRPC_HEALTH"] = harness.script("go-tool.sh", "grpc-health")


if __name__ == "__main__":
    status = harness.main([kubelet_test], prepare)
    complaint = static_node.stop_shared()
    if complaint:
        print(complaint)
    sys.exit(status or (1 if complaint else 0))
