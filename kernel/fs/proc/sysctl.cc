// /proc/sys: what programs ask for. Read-only but for the names of the host and what the plan's
// sysctls set; a value that nothing enforces is one that describes what the sentry does.

#include <linux/capability.h>

#include <algorithm>

#include "kernel/base/version.h"
#include "kernel/fs/proc/machine.h"
#include "kernel/fs/proc/proc.h"
#include "kernel/task/container.h"

namespace moat::kernel {

namespace {

struct Sysctl {
    const char* path;  // below /proc/sys
    const char* value;
};

constexpr Sysctl kSysctls[] = {
    {"fs/file-max", "9223372036854775807"},
    {"fs/file-nr", "0\t0\t9223372036854775807"},
    {"fs/nr_open", "1048576"},
    {"fs/pipe-max-size", "1048576"},
    {"fs/pipe-user-pages-hard", "0"},
    {"fs/pipe-user-pages-soft", "16384"},
    {"fs/aio-max-nr", "65536"},
    {"fs/aio-nr", "0"},
    {"fs/lease-break-time", "45"},
    {"fs/leases-enable", "1"},
    {"fs/mount-max", "100000"},
    {"fs/overflowgid", "65534"},
    {"fs/overflowuid", "65534"},
    {"fs/protected_fifos", "0"},
    {"fs/protected_hardlinks", "1"},
    {"fs/protected_regular", "0"},
    {"fs/protected_symlinks", "1"},
    {"fs/suid_dumpable", "0"},
    {"fs/inotify/max_queued_events", "16384"},
    {"fs/inotify/max_user_instances", "128"},
    {"fs/inotify/max_user_watches", "65536"},
    {"fs/epoll/max_user_watches", "1048576"},
    {"fs/mqueue/msg_default", "10"},
    {"fs/mqueue/msg_max", "10"},
    {"fs/mqueue/msgsize_default", "8192"},
    {"fs/mqueue/msgsize_max", "8192"},
    {"fs/mqueue/queues_max", "256"},
    {"kernel/cap_last_cap", "40"},
    {"kernel/core_pattern", "core"},
    {"kernel/core_uses_pid", "0"},
    {"kernel/dmesg_restrict", "0"},
    {"kernel/kptr_restrict", "2"},
    {"kernel/modules_disabled", "1"},
    {"kernel/msgmax", "8192"},
    {"kernel/msgmnb", "16384"},
    {"kernel/msgmni", "32000"},
    {"kernel/ngroups_max", "65536"},
    {"kernel/overflowgid", "65534"},
    {"kernel/overflowuid", "65534"},
    {"kernel/perf_event_paranoid", "4"},
    {"kernel/printk", "4\t4\t1\t7"},
    {"kernel/randomize_va_space", "2"},
    {"kernel/sem", "32000\t1024000000\t500\t32000"},
    {"kernel/shm_rmid_forced", "0"},
    {"kernel/shmall", "18446744073692774399"},
    {"kernel/shmmax", "18446744073692774399"},
    {"kernel/shmmni", "4096"},
    {"kernel/sched_rr_timeslice_ms", "4"},
    {"kernel/tainted", "0"},
    {"kernel/unprivileged_bpf_disabled", "2"},
    {"kernel/random/entropy_avail", "256"},
    {"kernel/random/poolsize", "256"},
    {"kernel/random/write_wakeup_threshold", "256"},
    {"kernel/seccomp/actions_avail", "kill_process kill_thread trap errno trace log allow"},
    {"kernel/yama/ptrace_scope", "1"},
    {"kernel/keys/maxkeys", "200"},
    {"kernel/keys/root_maxkeys", "1000000"},
    {"net/core/somaxconn", "4096"},
    {"net/core/rmem_default", "212992"},
    {"net/core/rmem_max", "212992"},
    {"net/core/wmem_default", "212992"},
    {"net/core/wmem_max", "212992"},
    {"net/core/optmem_max", "131072"},
    {"net/core/netdev_max_backlog", "1000"},
    {"net/ipv4/ip_forward", "0"},
    {"net/ipv4/ip_local_port_range", "32768\t60999"},
    {"net/ipv4/ip_local_reserved_ports", ""},
    {"net/ipv4/ip_unprivileged_port_start", "0"},
    {"net/ipv4/tcp_allowed_congestion_control", "reno cubic"},
    {"net/ipv4/tcp_available_congestion_control", "reno cubic"},
    {"net/ipv4/tcp_congestion_control", "cubic"},
    {"net/ipv4/tcp_fin_timeout", "60"},
    {"net/ipv4/tcp_keepalive_intvl", "75"},
    {"net/ipv4/tcp_keepalive_probes", "9"},
    {"net/ipv4/tcp_keepalive_time", "7200"},
    {"net/ipv4/tcp_max_syn_backlog", "4096"},
    {"net/ipv4/tcp_retries2", "15"},
    {"net/ipv4/tcp_rmem", "4096\t131072\t6291456"},
    {"net/ipv4/tcp_sack", "1"},
    {"net/ipv4/tcp_syncookies", "1"},
    {"net/ipv4/tcp_timestamps", "1"},
    {"net/ipv4/tcp_tw_reuse", "2"},
    {"net/ipv4/tcp_window_scaling", "1"},
    {"net/ipv4/tcp_wmem", "4096\t16384\t4194304"},
    {"net/ipv4/ping_group_range", "1\t0"},
    {"net/ipv6/conf/all/disable_ipv6", "0"},
    {"net/ipv6/conf/default/disable_ipv6", "0"},
    {"net/unix/max_dgram_qlen", "512"},
    {"user/max_user_namespaces", "0"},
    {"vm/dirty_background_ratio", "10"},
    {"vm/dirty_ratio", "20"},
    {"vm/max_map_count", "65530"},
    {"vm/min_free_kbytes", "67584"},
    {"vm/mmap_min_addr", "65536"},
    {"vm/nr_hugepages", "0"},
    {"vm/oom_kill_allocating_task", "0"},
    {"vm/overcommit_memory", "0"},
    {"vm/overcommit_ratio", "50"},
    {"vm/panic_on_oom", "0"},
    {"vm/swappiness", "60"},
    {"vm/unprivileged_userfaultfd", "0"},
    {"vm/vfs_cache_pressure", "100"},
    {"vm/zone_reclaim_mode", "0"},
};

/// The directory that holds `path`'s last component, whose name is cut off into `name`.
RefPtr<StaticDirectory> directory_of(StaticDirectory& sys, std::string_view path,
                                     std::string_view& name) {
    RefPtr<StaticDirectory> at(&sys);
    for (size_t slash; (slash = path.find('/')) != std::string_view::npos;) {
        at = at->directory(path.substr(0, slash));
        path.remove_prefix(slash + 1);
    }
    name = path;
    return at;
}

TextTarget host_name_target(void (Container::*set)(std::string)) {
    return [set](Task& task, std::string_view text) -> Status {
        if (!task.has_capability(CAP_SYS_ADMIN)) {
            return Errno(EPERM);
        }
        (task.container().*set)(std::string(text.substr(0, 64)));
        return {};
    };
}

}  // namespace

void add_sysctls(ProcFileSystem&, StaticDirectory& sys) {
    for (const Sysctl& sysctl : kSysctls) {
        std::string value = sysctl.value;
        std::string dotted = sysctl.path;
        for (char& c : dotted) {
            c = c == '/' ? '.' : c;
        }
        const auto& planned = machine().sysctls;
        if (const auto it = planned.find(dotted); it != planned.end()) {
            value = it->second;
        }
        std::string_view name;
        const auto directory = directory_of(sys, sysctl.path, name);
        directory->text(std::string(name), value + "\n");
    }
    // What the pod was given of the host's network and is not listed above.
    for (const auto& [dotted, value] : machine().sysctls) {
        std::string path = dotted;
        std::replace(path.begin(), path.end(), '.', '/');
        const bool listed = std::any_of(std::begin(kSysctls), std::end(kSysctls),
                                        [&](const Sysctl& s) { return path == s.path; });
        if (!listed && path.starts_with("net/")) {
            std::string_view name;
            const auto directory = directory_of(sys, path, name);
            directory->text(std::string(name), value + "\n");
        }
    }
    const auto kernel = sys.directory("kernel");
    kernel->text("ostype", std::string(kSysname) + "\n");
    kernel->text("osrelease", std::string(kRelease) + "\n");
    kernel->text("version", std::string(kKernelVersion) + "\n");
    kernel->text("pid_max", format_text("%d\n", PidNamespace::kMaxPid));
    kernel->text("threads-max", format_text("%d\n", PidNamespace::kMaxPid));
    kernel->control(
        "hostname",
        [](Task& task) -> Result<std::string> { return task.container().hostname() + "\n"; },
        host_name_target(&Container::set_hostname));
    kernel->control(
        "domainname",
        [](Task& task) -> Result<std::string> { return task.container().domainname() + "\n"; },
        host_name_target(&Container::set_domainname));
    const auto random = kernel->directory("random");
    random->text("boot_id", [](Task&) -> Result<std::string> { return machine().boot_id + "\n"; });
    random->text("uuid", [](Task&) -> Result<std::string> { return random_uuid() + "\n"; });
}

}  // namespace moat::kernel
