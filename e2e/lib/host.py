"""What a test sees of the host: processes and their memory, mounts, cgroups, namespaces, descriptors."""

import os
import re
import signal
import sys
import time

CGROUP_ROOT = "/sys/fs/cgroup"


def pids():
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def read(path, default=""):
    """A /proc or /sys file's text; `default` when its process is gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return default


def comm(pid):
    return read(f"/proc/{pid}/comm").strip()


def stat_fields(pid):
    """The fields of /proc/PID/stat behind the name: [0] is the state, [1] the parent; [] when gone."""
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def parent(pid):
    fields = stat_fields(pid)
    return int(fields[1]) if fields else 0


def is_zombie(pid):
    return stat_fields(pid)[:1] == ["Z"]


def alive(pid):
    """Runs or sleeps: neither gone nor a zombie that waits to be collected."""
    fields = stat_fields(pid)
    return bool(fields) and fields[0] not in "ZX"


def descendants(pid):
    """Every living process below `pid`, itself excluded."""
    children = {}
    for other in pids():
        children.setdefault(parent(other), []).append(other)
    found, queue = [], [pid]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child)
    return found


def by_comm(*names):
    """Processes by name. A name in /proc is cut to 15 bytes."""
    wanted = {n[:15] for n in names}
    return [pid for pid in pids() if comm(pid) in wanted and alive(pid)]


def memory(pid):
    """{"private": bytes, "pss": bytes} of a process's address space, zeros when it is gone."""
    totals = {"private": 0, "pss": 0}
    for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
        match = re.match(r"(Private_Clean|Private_Dirty|Private_Hugetlb|Pss):\s+(\d+) kB", line)
        if match:
            totals["pss" if match.group(1) == "Pss" else "private"] += int(match.group(2)) * 1024
    return totals


def open_descriptors(pid):
    """{descriptor: target}; a descriptor leak is named by what it points at."""
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                pass
    except OSError:
        pass
    return found


def mounts():
    """Every mount of this mount namespace, as "mountpoint type source"."""
    found = []
    for line in read("/proc/self/mountinfo").splitlines():
        fields = line.split()
        dash = fields.index("-")
        found.append(f"{fields[4]} {fields[dash + 1]} {fields[dash + 2]}")
    return sorted(found)


def network_namespaces():
    """Inodes of the network namespaces that a process is in or that a file keeps."""
    found = set()
    for pid in pids():
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
        except OSError:
            pass
    for line in read("/proc/self/mountinfo").splitlines():
        match = re.search(r" (net:\[\d+\]) ", line)
        if match:
            found.add(match.group(1))
    return sorted(found)


def hierarchies():
    """Directories of the mounted cgroup hierarchies, v1 and v2, each with `cgroup.procs` in it."""
    if os.path.exists(os.path.join(CGROUP_ROOT, "cgroup.procs")):
        return [CGROUP_ROOT]
    found = []
    for name in sorted(os.listdir(CGROUP_ROOT)):
        path = os.path.join(CGROUP_ROOT, name)
        if not os.path.islink(path) and os.path.exists(os.path.join(path, "cgroup.procs")):
            found.append(path)
    return found


def cgroups_below(name):
    """Every cgroup below `name` of each hierarchy, `name` itself excluded."""
    found = []
    for hierarchy in hierarchies():
        top = os.path.join(hierarchy, name)
        for path, _, _ in os.walk(top):
            if path != top:
                found.append(path)
    return sorted(found)


def make_cgroup(name):
    """Makes the group `name` in each hierarchy that lets us. Returns the paths made."""
    made = []
    for hierarchy in hierarchies():
        path = os.path.join(hierarchy, name)
        try:
            os.mkdir(path)
        except OSError:
            continue
        made.append(path)
        if os.path.exists(os.path.join(path, "cpuset.cpus")):  # v1: empty until told
            for file in ("cpuset.cpus", "cpuset.mems"):
                try:
                    with open(os.path.join(path, file), "w", encoding="ascii") as out:
                        out.write(read(os.path.join(hierarchy, file)))
                except OSError:
                    pass
    return made


def enter_cgroup(name):
    """Moves this process into `name` of each hierarchy that has it."""
    for hierarchy in hierarchies():
        try:
            with open(os.path.join(hierarchy, name, "cgroup.procs"), "w", encoding="ascii") as procs:
                procs.write("0")
        except OSError:
            pass


def remove_cgroup(name):
    """Removes `name` and what is below it, leaves first. Returns what could not be removed."""
    stuck = []
    for hierarchy in hierarchies():
        top = os.path.join(hierarchy, name)
        for path, _, _ in sorted(os.walk(top), reverse=True):
            try:
                os.rmdir(path)
            except OSError as error:
                stuck.append(f"{path}: {error.strerror}")
    return stuck


def wait_for(condition, seconds, what):
    """Polls `condition` until it is true; fails with `what` after `seconds`. Returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.01)


def kill_quietly(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Snapshot:
    """What must be the same before and after a test. Made inside the harness's own namespaces, so
    that other work on the machine does not show in it."""

    def __init__(self, cgroup, ignore=()):
        ignored = {os.getpid(), *ignore}
        self.items = {
            "mount": mounts(),
            "network namespace": network_namespaces(),
            "cgroup": cgroups_below(cgroup),
            "process": [f"{pid} {comm(pid)}" for pid in pids() if pid not in ignored and alive(pid)],
        }

    def expect_process(self, pid):
        """A process that the test started and that is to stay."""
        own = comm(os.getpid())
        wait_for(lambda: comm(pid) != own, 10, "it bears its own name: exec(2) gives it after it has closed what Popen waits for")
        self.items["process"].append(f"{pid} {comm(pid)}")

    def more_than(self, before):
        """Lines that say what is here and was not in `before`."""
        lines = []
        for kind, now in self.items.items():
            left = list(before.items[kind])
            for item in now:
                if item in left:
                    left.remove(item)
                else:
                    lines.append(f"left behind: {kind} {item}")
        return lines


def main():
    """For shell scripts: `memory PID...` prints private and PSS KiB of each and their sum; `pids NAME...`
    prints the processes of these names on one line."""
    verb, arguments = (sys.argv + [""])[1], sys.argv[2:]
    if verb == "pids" and arguments:
        print(*by_comm(*arguments))
        return
    if verb != "memory":
        sys.exit("usage: host.py memory PID... | pids NAME...")
    total = {"private": 0, "pss": 0}
    for argument in arguments:
        numbers = memory(int(argument))
        print(f"{argument} {comm(int(argument))}: private {numbers['private'] // 1024} KiB, PSS {numbers['pss'] // 1024} KiB")
        for key in total:
            total[key] += numbers[key]
    print(f"in all: private {total['private'] // 1024} KiB, PSS {total['pss'] // 1024} KiB")


if __name__ == "__main__":
    main()
