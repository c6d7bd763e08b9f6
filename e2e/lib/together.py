"""Tests that wait more than they work, run side by side."""

import concurrent.futures
import os
import threading
import unittest

import harness
import host


class Together(unittest.TestSuite):
    """Runs its tests in threads, on a stage that `stage()` makes and that stays. What they leave behind can only be
    looked for once, when all have ended. A test of it must not hinder the others, nor count what is there."""

    def __init__(self, tests, stage, threads=8, leak_seconds=60):
        super().__init__(tests)
        self.stage, self.threads, self.leak_seconds = stage, threads, leak_seconds

    def run(self, result, debug=False):
        tests = list(self)
        if not tests:
            return result
        nothing_left = NothingIsLeft(self.leak_seconds)
        try:
            self.stage()
        except Exception:  # each test tells it in its own name
            nothing_left = None
        else:
            nothing_left.before = host.Snapshot(harness.cgroup())
        lock = threading.Lock()

        def run_one(test):
            one = harness.Result()
            test.run(one)
            with lock:
                result.passed += one.passed
                result.bad += one.bad
                result.bad_tests += one.bad_tests
                result.skipped += one.skipped

        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(run_one, tests))
        if nothing_left:
            nothing_left.run(result)
        return result


class NothingIsLeft(unittest.TestCase):
    """The last of tests that ran together."""

    maxDiff = None

    def __init__(self, seconds):
        super().__init__("test_nothing_is_left_behind")
        self.seconds, self.before = seconds, None

    def test_nothing_is_left_behind(self):
        leaks = []

        def look():
            leaks[:] = host.Snapshot(harness.cgroup(), ignore=[os.getpid()]).more_than(self.before)
            return not leaks

        try:
            host.wait_for(look, self.seconds, "")
        except AssertionError:
            harness.clean_up(self.before)
        self.assertEqual(leaks, [])
