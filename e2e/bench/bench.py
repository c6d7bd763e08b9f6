#!/usr/bin/env python3
"""Times the same static program natively, in runc, in moat and (--peers) in gVisor's runsc, in one run.

    bench.py [--peers] [--write] [--quick] [--passes N] [--only native,runc,moat,runsc]

Passes are interleaved: each pass runs every contestant once, so that a slow minute of the machine hits all.
Reported is the best round of all passes, and the median of the passes' medians in the written page. Goals are
those of the project's first step; the exit status is 0 whatever the numbers say, 1 if something did not run.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import harness  # noqa: E402
import host  # noqa: E402
import oci  # noqa: E402

CACHE = os.path.join(harness.BUILD_ROOT, "cache")
PROGRAM = os.path.join(CACHE, "micro")
BENCH_ROOT = os.path.join(CACHE, "bench-root")
NATIVE_TMP = "/mnt"  # of our own mount namespace
CROWDS = (2, 4)

# Goals of layer 1. "ratio": to native in this run; "ns": absolute; "calls": calls a second, at least.
GOALS = {
    "getpid": ("ns", 5000),
    "mmap+touch+munmap 64 KiB": ("ratio", 1.5),
    "touch a fresh page": ("ratio", 1.1),
    "process ping-pong": ("ns", 25000),
    "process ping-pong, two CPUs": ("ratio", 1.2),  # set where native's took 32 us, which is across CPUs
    "fork+wait": ("ratio", 2.5),
    "posix_spawn+wait": ("ratio", 4.0),
    "calls/s beside 2 busy threads": ("calls", 180000),
    "calls/s beside 4 busy threads": ("calls", 85000),
    "run /bin/true": ("runc", 1.0),
    "idle pod, private memory": ("bytes", 5_000_000),
}


class Contestant:
    """One way to run a program. Every container has the same spec, root and /tmp (a tmpfs)."""

    def __init__(self, name, command=None):
        self.name, self.command = name, command
        self.count = 0

    def bundle(self, arguments):
        self.count += 1
        container = f"bench-{self.name}-{self.count}"
        directory = os.path.join(harness.scratch(), container)
        os.mkdir(directory)
        with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as out:
            json.dump(oci.spec(arguments, BENCH_ROOT, container), out)
        return container, directory

    def verb(self, verb, *arguments):
        return [*self.command, verb, *arguments]

    def run(self, arguments):
        """Runs to the end. Returns (stdout, seconds); raises RuntimeError with what was said."""
        if self.command is None:
            arguments = [BENCH_ROOT + arguments[0], *arguments[1:]]
            if arguments[0].endswith("/micro"):
                arguments += ["--dir", NATIVE_TMP]
            line, directory = arguments, None
        else:
            container, directory = self.bundle(arguments)
            line = self.verb("run", "--bundle", directory, container)
        start = time.monotonic()
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
        seconds = time.monotonic() - start
        if directory:
            shutil.rmtree(directory)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {' '.join(arguments)}: status {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}")
        return done.stdout, seconds

    def idle_memory(self):
        """Private bytes and PSS of all that an idle container adds to the machine."""
        arguments = ["/bin/sleep", "1000"]
        before = set(host.pids())
        devnull = subprocess.DEVNULL
        if self.command is None:
            process = subprocess.Popen([BENCH_ROOT + arguments[0], arguments[1]], stdin=devnull)
            host.wait_for(lambda: host.memory(process.pid)["private"] > 0, 10, "the program runs")
            numbers = settled_memory(lambda: [process.pid])
            process.kill()
            process.wait()
            return numbers
        container, directory = self.bundle(arguments)
        with open(os.path.join(directory, "log"), "wb") as log:
            for line in (self.verb("create", "--bundle", directory, container), self.verb("start", container)):
                done = subprocess.run(line, stdin=devnull, stdout=devnull, stderr=log, timeout=60, check=False)
                if done.returncode != 0:
                    raise RuntimeError(f"{self.name}: {' '.join(line)}: {host.read(log.name)[-600:]}")
        try:
            return settled_memory(lambda: [p for p in host.pids() if p not in before and host.alive(p)])
        finally:
            subprocess.run(self.verb("delete", "--force", container), stdin=devnull, capture_output=True, timeout=60, check=False)
            shutil.rmtree(directory)


def cpu_model():
    """As the kernel names it: absolute figures of two machines differ by two and more."""
    for line in host.read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def settled_memory(processes):
    """Sums until five readings, 50 ms apart, give the same: idle is when it no longer grows."""
    last, same = None, 0
    deadline = time.monotonic() + 10
    while same < 5 and time.monotonic() < deadline:
        found = {pid: host.memory(pid) for pid in processes()}
        total = (sum(n["private"] for n in found.values()), sum(n["pss"] for n in found.values()), len(found))
        same = same + 1 if total == last else 0
        last = total
        time.sleep(0.05)
    return {"private": last[0], "pss": last[1], "processes": last[2]}


def prepare():
    """The static program and a root with it and busybox in it."""
    os.makedirs(CACHE, exist_ok=True)
    source = os.path.join(HERE, "micro.c")
    if not os.path.exists(PROGRAM) or os.path.getmtime(PROGRAM) < os.path.getmtime(source):
        subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", PROGRAM, source], check=True)
    if os.path.isdir(BENCH_ROOT):
        shutil.rmtree(BENCH_ROOT)
    shutil.copytree(harness.busybox_root(), BENCH_ROOT, symlinks=True)
    shutil.copy2(PROGRAM, os.path.join(BENCH_ROOT, "bin", "micro"))


def contestants(options):
    state = os.path.join(harness.scratch(), "state-")
    found = [Contestant("native")]
    runc = shutil.which("runc")
    if runc:
        found.append(Contestant("runc", [runc, "--root", state + "runc"]))
    else:
        print("no runc on PATH: left out")
    moat = os.path.join(harness.BUILD, "moat")
    if os.path.exists(moat):
        found.append(Contestant("moat", [moat, "--root", state + "moat"]))
    else:
        print(f"no {moat}: left out")
    if options.peers:
        runsc = os.path.join(harness.BUILD_ROOT, "tools", "runsc")
        # Its network stack needs an interface to take over; none is what the others have too.
        found.append(Contestant("runsc", [runsc, "--root", state + "runsc", "--network=none", "--platform=systrap"]))
    if options.only:
        found = [c for c in found if c.name in options.only.split(",")]
    return found


class Table:
    """Values by row and contestant: every reading is kept."""

    def __init__(self):
        self.readings = {}

    def add(self, row, name, best, median=None):
        entry = self.readings.setdefault(row, {}).setdefault(name, ([], []))
        entry[0].append(best)
        entry[1].append(best if median is None else median)

    def best(self, row, name):
        entry = self.readings.get(row, {}).get(name)
        if not entry:
            return None
        return max(entry[0]) if row.startswith("calls/s") else min(entry[0])

    def median(self, row, name):
        entry = self.readings.get(row, {}).get(name)
        return statistics.median(entry[1]) if entry else None


def measure(table, players, options):
    problems = []

    def attempt(action, player):
        try:
            action(player)
        except (RuntimeError, AssertionError, OSError, subprocess.TimeoutExpired) as error:
            problems.append(str(error))
            print(f"  {error}", flush=True)

    def micro(player):
        for line in player.run(["/bin/micro", *(["--quick"] if options.quick else [])])[0].splitlines():
            name, best, median = line.split("\t")
            table.add(name, player.name, float(best), float(median))

    def crowd(player):
        for hogs in CROWDS:
            table.add(f"calls/s beside {hogs} busy threads", player.name, float(player.run(["/bin/micro", "--crowd", str(hogs)])[0]))

    def start(player):
        table.add("run /bin/true", player.name, player.run(["/bin/true"])[1] * 1e9)

    def memory(player):
        numbers = player.idle_memory()
        table.add("idle pod, private memory", player.name, numbers["private"])
        table.add("idle pod, PSS", player.name, numbers["pss"])

    for number in range(options.passes):
        print(f"pass {number + 1} of {options.passes}", flush=True)
        for player in players:
            attempt(micro, player)
    for _ in range(1 if options.quick else 2):
        for player in players:
            attempt(crowd, player)
    for _ in range(5 if options.quick else 20):
        for player in players:
            attempt(start, player)
    for _ in range(3):
        for player in players:
            attempt(memory, player)
    return problems


def show(row, value):
    """A value with its unit, short."""
    if value is None:
        return "-"
    if row.startswith("calls/s"):
        return f"{value:,.0f}"
    if row.startswith("idle"):
        return f"{value / 1e6:.2f} MB"
    for unit, size in (("ms", 1e6), ("us", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} ns"


def verdict(table, row):
    """(goal, reached?) of moat in a row that has a goal."""
    kind, wanted = GOALS[row]
    moat, native, runc = (table.best(row, n) for n in ("moat", "native", "runc"))
    if row == "idle pod, private memory":
        # Besides the program itself, which native shows.
        return f"<= {wanted / 1e6:.0f} MB besides its program", None if None in (moat, native) else moat - native <= wanted
    if kind == "ns":
        return f"<= {show(row, wanted)}", None if moat is None else moat <= wanted
    if kind == "calls":
        return f">= {wanted:,}", None if moat is None else moat >= wanted
    other, name = (runc, "runc") if kind == "runc" else (native, "native")
    return f"<= {wanted:g}x {name}", None if None in (moat, other) else moat <= wanted * other


def report(table, players):
    """The lines of the result: a table for people that is also markdown."""
    names = [p.name for p in players]
    heads = ["", *names, *[f"{n} / native" for n in names if n != "native"], "goal of moat", "reached"]
    rows = []
    for row in table.readings:
        cells = [row, *[show(row, table.best(row, n)) for n in names]]
        native = table.best(row, "native")
        for name in names:
            if name != "native":
                value = table.best(row, name)
                cells.append("-" if not value or not native else f"{value / native:.3g}x")
        goal, reached = verdict(table, row) if row in GOALS else ("", "")
        rows.append([*cells, goal, {True: "yes", False: "NO", None: "not measured"}.get(reached, "")])
    widths = [max(len(r[i]) for r in [heads, *rows]) for i in range(len(heads))]

    def line(cells):
        return "| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [line(heads), rule, *map(line, rows)]


def write_page(lines, players, problems, options):
    commit = subprocess.run(["git", "-C", harness.ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    page = [
        "# Benchmarks", "",
        f"Written by `make bench WRITE=1`{' with `PEERS=1`' if options.peers else ''} on {datetime.date.today()}, commit {commit}: "
        f"{os.cpu_count()} CPUs ({cpu_model()}), Linux {os.uname().release}. Best of {options.passes} interleaved passes of 7 rounds; start-up the best of 20; "
        "memory the least of 3. `e2e/bench/micro.c` says what each line does; `/tmp` is a tmpfs for all.", "",
        *lines, "",
    ]
    if problems:
        page += ["Did not run:", "", *[f"- {p}" for p in problems], ""]
    path = os.path.join(harness.ROOT, "docs", "bench.md")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        out.write("\n".join(page))
    print(f"wrote {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", action="store_true", help="gVisor's runsc too, built from its Go module")
    parser.add_argument("--write", action="store_true", help="write docs/bench.md")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, for a first look")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--only", help="contestants, by comma")
    options = parser.parse_args()
    if harness.INSIDE not in os.environ:
        prepare()
        if options.peers:
            harness.script("go-tool.sh", "runsc")
        return harness.enter()
    harness.settle()
    table, players = Table(), contestants(options)
    # The native run's files are on a tmpfs as the containers' are.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", NATIVE_TMP], check=True)
    problems = measure(table, players, options)
    lines = report(table, players)
    print("\n".join(lines))
    if options.write:
        write_page(lines, players, problems, options)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
