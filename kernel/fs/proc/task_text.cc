// Texts of one process or thread. Formats: proc(5), fs/proc/array.c.

#include <string.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "kernel/fs/proc/machine.h"
#include "kernel/fs/proc/proc.h"
#include "kernel/fs/tty/tty.h"
#include "kernel/task/seccomp_filter.h"

namespace moat::kernel {

namespace {

constexpr int64_t kTickNs = 1'000'000'000 / kClockTicksPerSecond;
constexpr uint64_t kMostText = 2 << 20;  // of arguments or environment shown

using ull = unsigned long long;

AddressSpace::Layout layout_of(Task& target) {
    const auto mm = target.mm_ref();
    return mm ? mm->layout() : AddressSpace::Layout();
}

std::string read_range(Task& target, uint64_t start, uint64_t end) {
    const auto mm = target.mm_ref();
    if (!mm || end <= start) {
        return "";
    }
    std::string text(std::min(end - start, kMostText), '\0');
    text.resize(mm->read(text.data(), GuestAddr{start}, text.size()));
    return text;
}

const char* state_word(char letter) {
    switch (letter) {
        case 'R':
            return "R (running)";
        case 'D':
            return "D (disk sleep)";
        case 'T':
            return "T (stopped)";
        case 'Z':
            return "Z (zombie)";
        case 'X':
            return "X (dead)";
        default:
            return "S (sleeping)";
    }
}

/// As old stat fields want it: major in bits 8 to 15, minor around it.
uint32_t old_device(uint64_t rdev) {
    return (minor(rdev) & 0xff) | (major(rdev) & 0xfff) << 8 | (minor(rdev) & ~0xffu) << 12;
}

}  // namespace

/// "0-3,5" of the first 64 CPUs.
std::string cpu_list(uint64_t mask) {
    std::string text;
    for (uint32_t cpu = 0; cpu < 64; cpu++) {
        if ((mask >> cpu & 1) == 0) {
            continue;
        }
        uint32_t last = cpu;
        while (last < 63 && (mask >> (last + 1) & 1) != 0) {
            last++;
        }
        append_text(text, "%s%u", text.empty() ? "" : ",", cpu);
        if (last > cpu) {
            append_text(text, "-%u", last);
        }
        cpu = last;
    }
    return text;
}

Result<std::string> proc_stat(Task& reader, Task& target) {
    const TaskView v = view_of(target);
    const bool may = may_inspect(reader, target).ok();
    const AddressSpace::Layout l = may ? layout_of(target) : AddressSpace::Layout();
    const bool whole = v.tid == v.pid;
    const CpuTimes cpu = whole ? cpu_times(target.group()) : cpu_times(target);
    const CpuTimes children = whole ? children_cpu_times(target.group()) : CpuTimes();
    std::string s;
    append_text(s, "%d (%s) %c %d %d %d %u %d ", v.tid, v.name.c_str(), v.state, v.parent, v.group,
                v.session, v.terminal ? old_device(v.terminal->rdev()) : 0, v.foreground);
    // flags, faults: the host's, not told
    append_text(s, "0 0 0 0 0 %llu %llu %llu %llu ", static_cast<ull>(cpu.user_ns / kTickNs),
                static_cast<ull>(cpu.system_ns / kTickNs),
                static_cast<ull>(children.user_ns / kTickNs),
                static_cast<ull>(children.system_ns / kTickNs));
    append_text(s, "%d %d %zu 0 %lld ", 20 + v.nice, v.nice, v.threads,
                static_cast<long long>(v.start_ns / kTickNs));
    append_text(s, "%llu %llu %llu ", static_cast<ull>(v.memory.virtual_bytes),
                static_cast<ull>(v.memory.resident_bytes / kPageSize),
                static_cast<ull>(target.rlimit(RLIMIT_RSS)));
    append_text(s, "%llu %llu %llu 0 0 ", static_cast<ull>(l.code_start),
                static_cast<ull>(l.code_end), static_cast<ull>(l.stack_top));
    append_text(s, "%llu %llu %llu %llu ", static_cast<ull>(v.pending & 0x7fffffff),
                static_cast<ull>(v.blocked & 0x7fffffff), static_cast<ull>(v.ignored & 0x7fffffff),
                static_cast<ull>(v.caught & 0x7fffffff));
    append_text(s, "0 0 0 17 0 0 %d 0 0 0 ", target.scheduling.policy.load());
    append_text(s, "0 0 %llu %llu %llu %llu %llu 0\n", static_cast<ull>(l.brk_start),
                static_cast<ull>(l.arg_start), static_cast<ull>(l.arg_end),
                static_cast<ull>(l.env_start), static_cast<ull>(l.env_end));
    return s;
}

Result<std::string> proc_statm(Task&, Task& target) {
    const auto mm = target.mm_ref();
    const MemoryUsage m = mm ? mm->usage() : MemoryUsage();
    return format_text(
        "%llu %llu %llu %llu 0 %llu 0\n", static_cast<ull>(m.virtual_bytes / kPageSize),
        static_cast<ull>(m.resident_bytes / kPageSize),
        static_cast<ull>(m.shared_bytes / kPageSize), static_cast<ull>(m.text_bytes / kPageSize),
        static_cast<ull>(m.data_bytes / kPageSize));
}

Result<std::string> proc_status(Task&, Task& target) {
    const TaskView v = view_of(target);
    const Credentials& c = *v.credentials;
    std::string s = "Name:\t";
    for (const char ch : v.name) {
        if (ch == '\n') {
            s += "\\n";
        } else if (ch == '\\') {
            s += "\\\\";
        } else {
            s += ch;
        }
    }
    append_text(s, "\nUmask:\t%04o\nState:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\n",
                v.umask, state_word(v.state), v.pid, v.tid, v.parent);
    append_text(s, "TracerPid:\t0\nUid:\t%u\t%u\t%u\t%u\nGid:\t%u\t%u\t%u\t%u\n", c.uid, c.euid,
                c.suid, c.fsuid, c.gid, c.egid, c.sgid, c.fsgid);
    size_t slots = 64;
    while (slots < v.descriptors) {
        slots *= 2;
    }
    append_text(s, "FDSize:\t%zu\nGroups:\t", slots);
    for (const uint32_t group : c.groups) {
        append_text(s, "%u ", group);
    }
    append_text(s, "\nNStgid:\t%d\nNSpid:\t%d\nNSpgid:\t%d\nNSsid:\t%d\n", v.pid, v.tid, v.group,
                v.session);
    if (!v.zombie) {
        const MemoryUsage& m = v.memory;
        append_text(
            s,
            "VmPeak:\t%8llu kB\nVmSize:\t%8llu kB\nVmLck:\t%8d kB\nVmPin:\t%8d kB\n"
            "VmHWM:\t%8llu kB\nVmRSS:\t%8llu kB\n",
            static_cast<ull>(m.virtual_bytes >> 10), static_cast<ull>(m.virtual_bytes >> 10), 0, 0,
            static_cast<ull>(m.resident_bytes >> 10), static_cast<ull>(m.resident_bytes >> 10));
        const uint64_t private_bytes =
            m.resident_bytes > m.shared_bytes ? m.resident_bytes - m.shared_bytes : 0;
        append_text(s, "RssAnon:\t%8llu kB\nRssFile:\t%8llu kB\nRssShmem:\t%8d kB\n",
                    static_cast<ull>(private_bytes >> 10), static_cast<ull>(m.shared_bytes >> 10),
                    0);
        append_text(s, "VmData:\t%8llu kB\nVmExe:\t%8llu kB\nVmSwap:\t%8d kB\n",
                    static_cast<ull>(m.data_bytes >> 10), static_cast<ull>(m.text_bytes >> 10), 0);
    }
    append_text(s, "Threads:\t%zu\nSigQ:\t0/%llu\n", v.threads,
                static_cast<ull>(target.rlimit(RLIMIT_SIGPENDING)));
    append_text(s,
                "SigPnd:\t%016llx\nShdPnd:\t%016llx\nSigBlk:\t%016llx\nSigIgn:\t%016llx\n"
                "SigCgt:\t%016llx\n",
                static_cast<ull>(v.pending), 0ull, static_cast<ull>(v.blocked),
                static_cast<ull>(v.ignored), static_cast<ull>(v.caught));
    append_text(s,
                "CapInh:\t%016llx\nCapPrm:\t%016llx\nCapEff:\t%016llx\nCapBnd:\t%016llx\n"
                "CapAmb:\t%016llx\n",
                static_cast<ull>(c.inheritable), static_cast<ull>(c.permitted),
                static_cast<ull>(c.effective), static_cast<ull>(c.bounding),
                static_cast<ull>(c.ambient));
    const SeccompFilter* filter = target.seccomp_filter();
    append_text(s, "NoNewPrivs:\t%d\nSeccomp:\t%d\nSeccomp_filters:\t%u\n", c.no_new_privs ? 1 : 0,
                target.seccomp_mode(), filter == nullptr ? 0 : filter->count());
    const uint64_t allowed = allowed_cpus(target);
    append_text(s, "Cpus_allowed:\t%llx\nCpus_allowed_list:\t%s\n", static_cast<ull>(allowed),
                cpu_list(allowed).c_str());
    s += "Mems_allowed:\t1\nMems_allowed_list:\t0\n";
    return s;
}

Result<std::string> proc_limits(Task&, Task& target) {
    struct Row {
        int resource;
        const char* name;
        const char* unit;
    };
    static constexpr Row kRows[] = {
        {RLIMIT_CPU, "Max cpu time", "seconds"},
        {RLIMIT_FSIZE, "Max file size", "bytes"},
        {RLIMIT_DATA, "Max data size", "bytes"},
        {RLIMIT_STACK, "Max stack size", "bytes"},
        {RLIMIT_CORE, "Max core file size", "bytes"},
        {RLIMIT_RSS, "Max resident set", "bytes"},
        {RLIMIT_NPROC, "Max processes", "processes"},
        {RLIMIT_NOFILE, "Max open files", "files"},
        {RLIMIT_MEMLOCK, "Max locked memory", "bytes"},
        {RLIMIT_AS, "Max address space", "bytes"},
        {RLIMIT_LOCKS, "Max file locks", "locks"},
        {RLIMIT_SIGPENDING, "Max pending signals", "signals"},
        {RLIMIT_MSGQUEUE, "Max msgqueue size", "bytes"},
        {RLIMIT_NICE, "Max nice priority", ""},
        {RLIMIT_RTPRIO, "Max realtime priority", ""},
        {RLIMIT_RTTIME, "Max realtime timeout", "us"},
    };
    auto number = [](rlim_t value) {
        return value == RLIM_INFINITY ? std::string("unlimited") : std::to_string(value);
    };
    std::string s =
        format_text("%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit", "Units     ");
    for (const Row& row : kRows) {
        const rlimit limit = target.group().limit(row.resource);
        append_text(s, "%-25s %-20s %-20s %-10s\n", row.name, number(limit.rlim_cur).c_str(),
                    number(limit.rlim_max).c_str(), row.unit);
    }
    return s;
}

/// Linux: fs/proc/base.c:get_mm_cmdline. A program that has overwritten its last argument's NUL has
/// written a title over arguments and environment: that is shown up to its end.
Result<std::string> proc_cmdline(Task&, Task& target) {
    const AddressSpace::Layout l = layout_of(target);
    std::string text = read_range(target, l.arg_start, l.arg_end);
    if (!text.empty() && text.back() != '\0') {
        text += read_range(target, l.arg_end, std::min(l.env_end, l.arg_end + kPageSize));
        text.resize(strnlen(text.data(), text.size()));
    }
    return text;
}

Result<std::string> proc_environ(Task& reader, Task& target) {
    TRY(may_inspect(reader, target));
    const AddressSpace::Layout l = layout_of(target);
    return read_range(target, l.env_start, l.env_end);
}

Result<std::string> proc_auxv(Task& reader, Task& target) {
    TRY(may_inspect(reader, target));
    const AddressSpace::Layout l = layout_of(target);
    return std::string(reinterpret_cast<const char*>(l.auxv.data()),
                       l.auxv.size() * sizeof(uint64_t));
}

}  // namespace moat::kernel
