"""Runs unittest cases in namespaces of their own and counts them.

`main(module)` re-executes the program below `unshare`: private mount, network, pid, UTS and IPC
namespaces and a cgroup of its own. Whatever a test leaves behind is seen without the noise of the
machine, cannot outlive the run (the pid namespace's init takes it along), and touches no interface.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import host

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD_ROOT = os.environ.get("MOAT_BUILD_ROOT", os.path.join(ROOT, "build"))
BUILD = os.path.abspath(os.environ.get("MOAT_BUILD", os.path.join(BUILD_ROOT, "release")))
INSIDE = "MOAT_E2E_INSIDE"
IMAGES = os.path.join(ROOT, "e2e", "images")
NAMESPACES = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--propagation", "private"]


def busybox_root():
    """The busybox root, unpacked once a run of the build directory."""
    target = os.path.join(BUILD_ROOT, "cache", "busybox-root")
    if not os.path.isdir(target):
        subprocess.run([os.path.join(IMAGES, "mkimage.py"), "rootfs", "busybox", target], check=True)
    return target


def debian_root():
    answer = subprocess.run([os.path.join(IMAGES, "debian-root.sh")], stdout=subprocess.PIPE, text=True, check=True)
    return answer.stdout.strip()


def programs_root():
    answer = subprocess.run([os.path.join(IMAGES, "debian-root.sh"), "programs"], stdout=subprocess.PIPE, text=True, check=True)
    return answer.stdout.strip()


def script(name, *arguments):
    """Runs scripts/NAME and returns what it prints."""
    return subprocess.run([os.path.join(ROOT, "scripts", name), *arguments], stdout=subprocess.PIPE, text=True,
                          check=True).stdout.strip()


def cgroup():
    """The run's own cgroup, relative to each hierarchy's root."""
    return os.environ[INSIDE]


def scratch():
    """The run's own directory; short, since unix socket paths are."""
    return os.environ["MOAT_E2E_SCRATCH"]


class Case(unittest.TestCase):
    """A test that fails if it leaves a mount, a cgroup, a namespace or a process behind."""

    maxDiff = None
    leak_seconds = 10  # how long what was asked to go may take to be gone

    def setUp(self):
        self.before = host.Snapshot(cgroup())
        self.directory = tempfile.mkdtemp(dir=scratch())
        self.addCleanup(self.check_leaks)  # the first added runs last

    def check_leaks(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        deadline = time.monotonic() + self.leak_seconds
        while True:
            leaks = host.Snapshot(cgroup()).more_than(self.before)
            if not leaks or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        if leaks:
            clean_up(self.before)
        self.assertEqual(leaks, [])


def clean_up(before):
    """Takes away what a failed test left, so that the next one starts clean."""
    known = {int(item.split()[0]) for item in before.items["process"]}
    for pid in host.pids():
        if pid != os.getpid() and pid not in known:
            host.kill_quietly(pid)
    time.sleep(0.1)
    for line in sorted(set(host.mounts()) - set(before.items["mount"]), reverse=True):
        ctypes.CDLL(None).umount2(line.split()[0].encode(), 2)  # MNT_DETACH
    for path in sorted(set(host.cgroups_below(cgroup())) - set(before.items["cgroup"]), reverse=True):
        try:
            os.rmdir(path)
        except OSError:
            pass


class Result(unittest.TestResult):
    """One line a test as it ends, what went wrong below it."""

    def __init__(self, record=None):
        super().__init__()
        self.record = record if record is not None else []
        self.passed = 0
        self.bad = 0
        self.began = 0.0
        self.pending = []  # what the running test was found guilty of
        self.bad_tests = []

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()
        self.pending = []

    def line(self, word, test, text=""):
        seconds = time.monotonic() - self.began
        self.record.append((word, test.id(), seconds, text.removeprefix(": ")))
        print(f"{word:<5} {test.id()} ({seconds:.1f} s){text}", flush=True)

    def stopTest(self, test):
        super().stopTest(test)
        if self.pending:
            self.bad += 1
            self.bad_tests.append(test)
            self.line("FAIL", test)
            for _, trace in self.pending:
                print("      " + trace.strip().replace("\n", "\n      "), flush=True)
        elif not any(t is test for t, _ in self.skipped):
            self.passed += 1
            self.line("ok", test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.pending.append(self.failures[-1])

    def addError(self, test, err):
        super().addError(test, err)
        self.pending.append(self.errors[-1])
        if not isinstance(test, unittest.TestCase):  # setUpModule, tearDownModule: no test that starts or stops
            self.bad += 1
            self.line("FAIL", test)
            print("      " + self.errors[-1][1].strip().replace("\n", "\n      "), flush=True)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.line("skip", test, ": " + reason)


def enter():
    """Outside: prepares what needs the machine's network, then runs this program again in its namespaces."""
    if os.geteuid() != 0:
        sys.exit("this suite makes containers: run it as root")
    name = f"moat-e2e-{os.getpid()}"
    directory = tempfile.mkdtemp(prefix="moat-e2e-", dir="/tmp")
    os.chmod(directory, 0o711)  # what is root in a user namespace comes through
    os.chmod(directory, 0o755)
    host.make_cgroup(name)
    environment = {**os.environ, INSIDE: name, "MOAT_E2E_SCRATCH": directory}
    try:
        # The shell is the pid namespace's init: it collects what is left to it, which is not ours to count.
        status = subprocess.run([*NAMESPACES, "sh", "-c", '"$@"; exit $?', "init", sys.executable, *sys.argv],
                                env=environment, check=False).returncode
    finally:
        host.wait_for(lambda: not any(host.read(os.path.join(h, name, "cgroup.procs")) for h in host.hierarchies()),
                      10, "the run's processes are gone")
        for line in host.remove_cgroup(name):
            print(f"cannot remove cgroup {line}")
        shutil.rmtree(directory, ignore_errors=True)
    return status


def settle():
    """Inside: makes the new namespaces look like a node's."""
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    subprocess.run(["mount", "--make-rshared", "/"], check=True)  # as it is on a node
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["hostname", "node1"], check=True)
    host.enter_cgroup(cgroup())


def main(modules, prepare=None):
    """Entry point of a suite of test modules; arguments are patterns of test names.

    `prepare()` runs outside, once, with the machine's network at hand.
    """
    if INSIDE not in os.environ:
        if prepare:
            prepare()
        return enter()
    settle()
    passed, failed, skipped = run_modules(modules, [a for a in sys.argv[1:] if not a.startswith("-")])
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


def run_modules(modules, patterns=(), record=None):
    """Runs the tests of `modules` whose names contain one of `patterns`. Returns (passed, failed, skipped).

    `record` gets (ok|FAIL|skip, test, seconds, reason) of each run of a test.
    """
    loader = unittest.TestLoader()
    if patterns:
        loader.testNamePatterns = [f"*{p}*" for p in patterns]
    result = Result(record)
    unittest.TestSuite(loader.loadTestsFromModule(m) for m in modules).run(result)
    if 0 < len(result.bad_tests) <= 5:
        # A machine shared by others stalls now and then: what fails is tried once more, and named.
        print(f"a second time: {', '.join(t.id() for t in result.bad_tests)}", flush=True)
        again = Result(result.record)
        unittest.TestSuite(result.bad_tests).run(again)
        result.passed += again.passed
        # What did not even run this time (its module could not be set up again) stays bad.
        result.bad -= again.passed
    return result.passed, result.bad, len(result.skipped)
