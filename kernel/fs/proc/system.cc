// /proc's files about the whole sandbox. What belongs to the host alone (disks, interrupts, swap)
// is there and empty, as on a machine that has none.

#include "kernel/base/version.h"
#include "kernel/fs/proc/machine.h"
#include "kernel/fs/proc/proc.h"
#include "kernel/fs/registry.h"
#include "kernel/ipc/ipc_namespace.h"
#include "kernel/task/container.h"

namespace moat::kernel {

namespace {

using ull = unsigned long long;

std::string meminfo_text(const MemoryView& m) {
    const ull total = m.total >> 10, free = m.free >> 10, used = m.resident >> 10;
    std::string s;
    auto line = [&s](const char* name, ull kib) { append_text(s, "%-15s %8llu kB\n", name, kib); };
    line("MemTotal:", total);
    line("MemFree:", free);
    line("MemAvailable:", free);
    for (const char* name : {"Buffers:", "Cached:", "SwapCached:"}) {
        line(name, 0);
    }
    line("Active:", used);
    line("Inactive:", 0);
    line("Active(anon):", used);
    for (const char* name : {"Inactive(anon):", "Active(file):", "Inactive(file):", "Unevictable:",
                             "Mlocked:", "SwapTotal:", "SwapFree:", "Dirty:", "Writeback:"}) {
        line(name, 0);
    }
    line("AnonPages:", used);
    for (const char* name : {"Mapped:", "Shmem:", "KReclaimable:", "Slab:", "SReclaimable:",
                             "SUnreclaim:", "KernelStack:", "PageTables:"}) {
        line(name, 0);
    }
    line("CommitLimit:", total);
    line("Committed_AS:", used);
    line("VmallocTotal:", 34359738367ull);
    line("VmallocUsed:", 0);
    line("VmallocChunk:", 0);
    append_text(s,
                "HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\n"
                "HugePages_Surp:        0\n");
    line("Hugepagesize:", 2048);
    return s;
}

/// Time that guests' processes used and the rest of what the CPUs had, in ticks.
std::string stat_text(const PidNamespace& pids) {
    const int64_t tick = 1'000'000'000 / kClockTicksPerSecond;
    uint64_t used_ns = 0;
    size_t running = 0;
    size_t processes = 0;
    for (const auto& group : pids.groups()) {
        processes++;
        used_ns += group->cpu_ns() + group->children_cpu_ns();
        const auto task = task_of_process(*group);
        running += task && task->state_letter() == 'R' ? 1 : 0;
    }
    const uint32_t cpus = machine().cpus;
    const uint64_t had_ns = static_cast<uint64_t>(uptime_ns()) * cpus;
    const uint64_t idle_ns = had_ns > used_ns ? had_ns - used_ns : 0;
    std::string s;
    append_text(s, "cpu  %llu 0 0 %llu 0 0 0 0 0 0\n", static_cast<ull>(used_ns / tick),
                static_cast<ull>(idle_ns / tick));
    for (uint32_t cpu = 0; cpu < cpus; cpu++) {
        append_text(s, "cpu%u %llu 0 0 %llu 0 0 0 0 0 0\n", cpu,
                    static_cast<ull>(used_ns / cpus / tick),
                    static_cast<ull>(idle_ns / cpus / tick));
    }
    append_text(s,
                "intr 0\nctxt 0\nbtime %lld\nprocesses %zu\nprocs_running %zu\nprocs_blocked 0\n"
                "softirq 0 0 0 0 0 0 0 0 0 0 0\n",
                static_cast<long long>(machine().boot_realtime_ns / 1'000'000'000), processes,
                running);
    return s;
}

std::string uptime_text(const PidNamespace& pids) {
    uint64_t used_ns = 0;
    for (const auto& group : pids.groups()) {
        used_ns += group->cpu_ns();
    }
    const int64_t up = uptime_ns();
    const int64_t idle = std::max<int64_t>(up * machine().cpus - static_cast<int64_t>(used_ns), 0);
    return format_text("%lld.%02lld %lld.%02lld\n", static_cast<long long>(up / 1'000'000'000),
                       static_cast<long long>(up / 10'000'000 % 100),
                       static_cast<long long>(idle / 1'000'000'000),
                       static_cast<long long>(idle / 10'000'000 % 100));
}

/// Load averages are not kept; how many run and how many there are is told.
std::string loadavg_text(const PidNamespace& pids) {
    size_t running = 0;
    int32_t last = 0;
    for (const auto& group : pids.groups()) {
        const auto task = task_of_process(*group);
        running += task && task->state_letter() == 'R' ? 1 : 0;
        last = std::max(last, group->pid());
    }
    return format_text("0.00 0.00 0.00 %zu/%zu %d\n", running, pids.task_count(), last);
}

std::string filesystems_text() {
    std::string s;
    for (const std::string& type : file_system_types()) {
        if (type != "dev" && type != "gofer" && type != "shared") {  // plans' words, not mount(2)'s
            append_text(s, "nodev\t%s\n", type.c_str());
        }
    }
    return s;
}

}  // namespace

void add_system_files(ProcFileSystem& fs, StaticDirectory& root) {
    const ProcFileSystem* const proc = &fs;
    root.text("meminfo", [proc](Task& reader) -> Result<std::string> {
        return meminfo_text(memory_view(proc->pids(), reader.container()));
    });
    root.text("stat", [proc](Task&) -> Result<std::string> { return stat_text(proc->pids()); });
    root.text("uptime", [proc](Task&) -> Result<std::string> { return uptime_text(proc->pids()); });
    root.text("loadavg",
              [proc](Task&) -> Result<std::string> { return loadavg_text(proc->pids()); });
    root.text("cpuinfo", [](Task&) -> Result<std::string> { return cpuinfo_text(); });
    root.text("filesystems", [](Task&) -> Result<std::string> { return filesystems_text(); });
    root.text("version", std::string(kProcVersion) + "\n");
    root.text("cmdline", "BOOT_IMAGE=moat\n");
    root.text("devices",
              "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n"
              "136 pts\n\nBlock devices:\n");
    root.text("partitions", "major minor  #blocks  name\n\n");
    root.text("diskstats", "");
    root.text("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
    root.text("modules", "");
    root.text("kallsyms", "");
    root.text("locks", "");
    root.text("cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\n");
    root.text("interrupts", [](Task&) -> Result<std::string> {
        std::string s = "          ";
        for (uint32_t cpu = 0; cpu < machine().cpus; cpu++) {
            append_text(s, " CPU%-7u", cpu);
        }
        return s + "\n";
    });
    root.text("vmstat", [proc](Task& reader) -> Result<std::string> {
        const MemoryView m = memory_view(proc->pids(), reader.container());
        return format_text(
            "nr_free_pages %llu\nnr_anon_pages %llu\nnr_mapped 0\nnr_file_pages 0\n"
            "pgpgin 0\npgpgout 0\npswpin 0\npswpout 0\npgfault 0\npgmajfault 0\n"
            "oom_kill 0\n",
            static_cast<ull>(m.free / kPageSize), static_cast<ull>(m.resident / kPageSize));
    });
    const auto sysvipc = root.directory("sysvipc");
    sysvipc->text("shm", [](Task& reader) -> Result<std::string> {
        return reader.container().ipc().shm().text(reader);
    });
    sysvipc->text("sem", [](Task& reader) -> Result<std::string> {
        return reader.container().ipc().sem().text(reader);
    });
    sysvipc->text("msg", [](Task& reader) -> Result<std::string> {
        return reader.container().ipc().msg().text(reader);
    });
    const auto pressure = root.directory("pressure");
    for (const char* name : {"cpu", "io", "memory"}) {
        // As with psi=0: nothing is measured, and zeros would be taken for a measurement.
        pressure->text(name, [](Task&) -> Result<std::string> { return Errno(EOPNOTSUPP); });
    }
    root.directory("fs");
    root.directory("driver");
    root.directory("bus");
    root.directory("irq");
    const auto tty = root.directory("tty");
    tty->text("drivers",
              "/dev/tty             /dev/tty        5       0 system:/dev/tty\n"
              "/dev/console         /dev/console    5       1 system:console\n"
              "/dev/ptmx            /dev/ptmx       5       2 system\n"
              "pty_slave            /dev/pts      136 0-1048575 pty:slave\n");
}

}  // namespace moat::kernel
