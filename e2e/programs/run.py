#!/usr/bin/env python3
"""Servers that users run first, out of Debian's packages, in the sandbox: do they give right answers? As root.

    e2e/programs/run.py [PATTERN...]        every test, or those whose name contains a pattern
    RUNTIME=runc e2e/programs/run.py        the reference: what runc fails is wrong here

The first run makes a root of about 500 MB (e2e/images/debian-root.sh programs).
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]

import databases_test  # noqa: E402
import harness  # noqa: E402
import servers_test  # noqa: E402

if __name__ == "__main__":
    sys.exit(harness.main([databases_test, servers_test], harness.programs_root))
