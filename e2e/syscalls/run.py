#!/usr/bin/env python3
"""Runs the guest syscall tests and judges them case by case.

    run.py --native BINDIR                      on this machine's own kernel
    run.py --via '/path/moat do --' BINDIR      each binary behind a command prefix, in the sentry

Each binary runs in a fresh temporary directory. A case that hangs or kills its binary fails, and the
binary is started again behind that case. With --via, failures listed in expectations.txt are
expected; a listed case that passes, and a line that names no case, fail the run, unless its reason begins
with "unsteady: ". A family with an unexpected failure runs a second time; what passes then is named.
"""

import argparse
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# Programs that take arguments of their own and print one PASS/FAIL line per attack.
NOT_DOCTEST = ("hostile",)


class Case:
    def __init__(self, name):
        self.name = name
        self.verdict = None  # pass | fail | skip | known
        self.unsteady = False
        self.details = []


def kill_group(process):
    """Ends a run: politely first, so that a runner can take its sandbox down."""
    for sig, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, sig)
        except ProcessLookupError:
            pass
        try:
            process.wait(patience)
            break
        except subprocess.TimeoutExpired:
            continue
    try:
        os.killpg(process.pid, signal.SIGKILL)  # what the leader left behind
    except ProcessLookupError:
        pass


def run_once(command, env, cwd, case_limit, first):
    """Runs a binary from case number `first` (1-based) on.

    Returns (cases, end) where end is "done", or says why the binary stopped early.
    """
    argv = command + ([f"--first={first}"] if first > 1 else [])
    if shutil.which(command[0]) is None:
        missing = Case("(outside any case)")
        missing.verdict = "fail"
        missing.details.append(f"  cannot run {command[0]}")
        return [missing], "outside"
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, env=env, cwd=cwd, start_new_session=True)
    cases, current, ended, early, pending = [], None, False, [], b""
    fd = process.stdout.fileno()
    os.set_blocking(fd, False)
    deadline = time.monotonic() + case_limit
    reason = None
    while True:
        timeout = min(deadline - time.monotonic(), 1.0)
        if timeout <= 0:
            reason = f"hung: no case ended for {case_limit} s"
            kill_group(process)
            break
        if not select.select([fd], [], [], timeout)[0]:
            if process.poll() is not None:
                break  # a forgotten grandchild may hold the pipe open; the binary itself is gone
            continue
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            continue
        if not data:
            break
        pending += data
        *lines, pending = pending.split(b"\n")
        for raw in lines:
            line = raw.decode("utf-8", "replace").rstrip("\r")
            word, _, rest = line.partition(" ")
            if word == "@start":
                current = Case(rest)
                cases.append(current)
                deadline = time.monotonic() + case_limit
            elif word in ("@pass", "@fail", "@skip") and current and rest == current.name:
                current.verdict = word[1:]
                current = None
                deadline = time.monotonic() + case_limit
            elif word == "@end":
                ended = True
            elif current:
                current.details.append(line)
            else:
                early.append(line)
    if reason is None:
        try:
            status = process.wait(30)
        except subprocess.TimeoutExpired:
            kill_group(process)
            status = "none: it closed its output and stayed"
        failed = any(c.verdict == "fail" for c in cases)
        if ended and (status == 0 or (failed and status == 1)):
            reason = "done"
        else:
            reason = f"the binary ended with status {status}"
    process.stdout.close()
    if reason != "done":
        broken = current or Case("(outside any case)")
        if current is None:
            cases.append(broken)
        broken.verdict = "fail"
        broken.details += early[-5:] + [f"  {reason}"]
    return cases, "outside" if reason != "done" and current is None else reason


def run_binary(path, prefix, options):
    """All cases of one binary, started again behind each case that stops it."""
    env = dict(os.environ)
    command = prefix + [path, "--reporters=lines"]
    if prefix:
        env["MOAT_GUEST"] = "1"
        command.append("--moat-guest")
    cases, end = [], None
    stop_at = time.monotonic() + options.limit
    while end not in ("done", "outside"):
        directory = tempfile.mkdtemp(prefix="moat-guest-")
        env["TMPDIR"] = directory
        os.chmod(directory, 0o755)  # cases that drop privileges look inside
        try:
            more, end = run_once(command, env, directory, options.case_limit, len(cases) + 1)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        cases += more
        if time.monotonic() > stop_at and end not in ("done", "outside"):
            rest = Case("(the cases behind the last one)")
            rest.verdict = "fail"
            rest.details.append(f"  not run: over the binary's limit of {options.limit} s")
            cases.append(rest)
            break
    if not cases:
        nothing = Case("(outside any case)")
        nothing.verdict = "fail"
        nothing.details.append("  the binary has no cases")
        cases.append(nothing)
    return cases


def look_again(cases, again):
    """A case that fails and then passes is unsteady: it passes, and is named as such."""
    second = {c.name: c.verdict for c in again}
    for case in cases:
        if case.verdict == "fail" and second.get(case.name) == "pass":
            case.verdict = "pass"
            case.unsteady = True


def read_expectations(path, families):
    """{family: [line rest]} of the lines that concern the families that run."""
    wanted = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            family, _, rest = line.partition(": ")
            if family in families:
                wanted.setdefault(family, []).append(rest)
    return wanted


def apply_expectations(family, cases, lines):
    """Turns listed failures into "known" and adds failures for lines that are wrong."""
    by_name = {c.name: c for c in cases}
    extra = []
    for rest in lines:
        matching = [n for n in by_name if rest.startswith(n + ": ")]
        if not matching:
            stale = Case(rest)
            stale.verdict = "fail"
            stale.details.append("  expectations.txt: no such case, or no reason behind its name")
            extra.append(stale)
            continue
        case = by_name[max(matching, key=len)]
        if case.verdict == "fail":
            case.verdict = "known"
        elif case.verdict == "pass" and not case.unsteady and not rest[len(case.name):].startswith(
                ": unsteady: "):
            case.verdict = "fail"
            case.details.append("  passes although expectations.txt says that it fails: "
                                "remove its line")
    return cases + extra


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--native", action="store_true", help="run on this kernel")
    how.add_argument("--via", metavar="PREFIX", help="command prefix that runs a program in the sentry")
    parser.add_argument("bindir", help="where the test binaries are")
    parser.add_argument("--only", action="append", default=[], metavar="FAMILY")
    parser.add_argument("--expectations", default=os.path.join(HERE, "expectations.txt"))
    parser.add_argument("--print-expectations", action="store_true",
                        help="print lines for what failed, to be completed with reasons")
    parser.add_argument("--case-limit", type=int, default=60, help="seconds a case may take")
    parser.add_argument("--limit", type=int, default=600, help="seconds a binary may take")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    options = parser.parse_args()

    prefix = shlex.split(options.via) if options.via else []
    bindir = os.path.abspath(options.bindir)
    families = options.only or sorted(
        name for name in os.listdir(bindir)
        if os.access(os.path.join(bindir, name), os.X_OK)
        and os.path.isfile(os.path.join(bindir, name)) and name not in NOT_DOCTEST)
    expected = read_expectations(options.expectations, families) if prefix else {}

    total = {"pass": 0, "fail": 0, "skip": 0, "known": 0}
    to_list = []
    print(f"{'family':<22}{'passed':>8}{'failed':>8}{'skipped':>8}{'known':>8}{'seconds':>9}")
    for family in families:
        start = time.monotonic()
        cases = run_binary(os.path.join(bindir, family), prefix, options)
        listed = expected.get(family, [])
        if any(c.verdict == "fail" and not any(r.startswith(c.name + ": ") for r in listed)
               for c in cases):
            look_again(cases, run_binary(os.path.join(bindir, family), prefix, options))
        cases = apply_expectations(family, cases, listed)
        count = {v: sum(c.verdict == v for c in cases) for v in total}
        for verdict, n in count.items():
            total[verdict] += n
        print(f"{family:<22}{count['pass']:>8}{count['fail']:>8}{count['skip']:>8}"
              f"{count['known']:>8}{time.monotonic() - start:>9.1f}", flush=True)
        for case in cases:
            if case.verdict == "fail":
                to_list.append(f"{family}: {case.name}: ")
            if case.verdict in ("fail", "skip") or case.unsteady or options.verbose:
                print(f"    {case.verdict:<5} {case.name}"
                      f"{' (only the second time)' if case.unsteady else ''}")
                for line in case.details[:40]:
                    print(f"      {line}")
        sys.stdout.flush()
    if options.print_expectations:
        print("\n".join(to_list))
    known = f" ({total['known']} known failures)" if total["known"] else ""
    print(f"{total['pass']} passed, {total['fail']} failed, {total['skip']} skipped{known}")
    return 1 if total["fail"] else 0


if __name__ == "__main__":
    sys.exit(main())
