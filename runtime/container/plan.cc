#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "cgroups/files.h"
#include "kernel/base/log.h"
#include "runtime/container/impl.h"
#include "runtime/spec/fields.h"

namespace moat::runtime {

int64_t now_ns() {
    timespec now;
    ::clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

control::ProcessPlan plan_process(const SpecProcess& process) {
    control::ProcessPlan plan;
    plan.args = process.args;
    plan.env = process.env;
    plan.cwd = process.cwd;
    plan.uid = process.uid;
    plan.gid = process.gid;
    plan.additional_gids = process.additional_gids;
    plan.umask = process.umask.value_or(022);
    plan.capabilities = process.capabilities;
    plan.rlimits = process.rlimits;
    plan.no_new_privileges = process.no_new_privileges;
    plan.terminal = process.terminal;
    plan.console_rows = process.console_rows;
    plan.console_columns = process.console_columns;
    return plan;
}

Result<std::vector<NamedFd>> plan_stdio(const Stdio& stdio, control::ProcessPlan& plan) {
    using control::StdioKind;
    std::vector<NamedFd> fds;
    if (stdio.cri_log_fd >= 0) {
        fds.push_back({"log", stdio.cri_log_fd});
    }
    if (plan.terminal) {
        if (stdio.console_fd < 0 && stdio.cri_log_fd < 0) {
            return Error(EINVAL, "a process with a terminal needs a console");
        }
        plan.stdin_kind = plan.stdout_kind = plan.stderr_kind = StdioKind::kTerminal;
        if (stdio.console_fd >= 0) {
            fds.push_back({"console", stdio.console_fd});
        }
        return fds;
    }
    const auto stream = [&](int fd, const char* name) {
        if (fd < 0) {
            return StdioKind::kNull;
        }
        fds.push_back({name, fd});
        return StdioKind::kFd;
    };
    plan.stdin_kind = stream(stdio.stdin_fd, "stdin");
    if (stdio.cri_log_fd >= 0) {
        plan.stdout_kind = plan.stderr_kind = StdioKind::kCriLog;
    } else {
        plan.stdout_kind = stream(stdio.stdout_fd, "stdout");
        plan.stderr_kind = stream(stdio.stderr_fd, "stderr");
    }
    return fds;
}

cgroups::Limits limits_of(const Resources& r) {
    cgroups::Limits limits;
    limits.memory_bytes = r.memory_limit_bytes;
    limits.memory_swap_bytes = r.memory_swap_bytes;
    limits.cpu_quota_us = r.cpu_quota_us;
    limits.cpu_period_us = r.cpu_period_us;
    limits.cpu_shares = r.cpu_shares;
    limits.cpuset_cpus = r.cpuset_cpus;
    limits.cpuset_mems = r.cpuset_mems;
    limits.pids = r.pids_limit;
    limits.huge_pages = r.huge_pages;
    limits.unified = r.unified;
    return limits;
}

cgroups::Limits within_parent(const cgroups::Manager& manager, const std::string& cgroup,
                              cgroups::Limits limits) {
    const auto number = [](const std::string& file) {
        return std::strtoll(cgroups::read_file(file).value_or("0").c_str(), nullptr, 10);
    };
    if (manager.version() != cgroups::Version::kV1 || limits.cpu_quota_us.value_or(0) <= 0) {
        return limits;
    }
    for (std::string above = cgroup.substr(0, cgroup.rfind('/')); !above.empty();
         above.erase(above.rfind('/'))) {
        for (const std::string& directory : manager.directories(above)) {
            const int64_t quota = number(directory + "/cpu.cfs_quota_us");
            const int64_t period = number(directory + "/cpu.cfs_period_us");
            if (quota <= 0 || period <= 0) {
                continue;
            }
            const uint64_t own = limits.cpu_period_us.value_or(0);
            const double wanted = static_cast<double>(*limits.cpu_quota_us) /
                                  (own != 0 ? static_cast<double>(own) : 100000.0);
            if (wanted > static_cast<double>(quota) / static_cast<double>(period)) {
                limits.cpu_quota_us = -1;
            }
            return limits;
        }
    }
    return limits;
}

uint64_t memory_limit_above(const cgroups::Manager& manager, const std::string& cgroup) {
    uint64_t smallest = 0;
    for (std::string above = cgroup.substr(0, cgroup.rfind('/')); !above.empty();
         above.erase(above.rfind('/'))) {
        for (const std::string& directory : manager.directories(above)) {
            for (const char* file : {"/memory.limit_in_bytes", "/memory.max"}) {
                // v2's "max" is 0 here, v1's «no limit» more than any machine has.
                const uint64_t limit = std::strtoull(
                    cgroups::read_file(directory + file).value_or("0").c_str(), nullptr, 10);
                if (limit > 0 && limit < (1ull << 62) && (smallest == 0 || limit < smallest)) {
                    smallest = limit;
                }
            }
        }
    }
    return smallest;
}

control::ShownLimits shown(const cgroups::Limits& limits) {
    control::ShownLimits out;
    const auto positive = [](int64_t value) {
        return static_cast<uint64_t>(std::max<int64_t>(value, 0));
    };
    if (limits.memory_bytes && *limits.memory_bytes != 0) {
        out.memory_bytes = positive(*limits.memory_bytes);
    }
    if (limits.cpu_quota_us && *limits.cpu_quota_us != 0) {
        out.cpu_quota_us = positive(*limits.cpu_quota_us);
    }
    if (limits.cpu_period_us && *limits.cpu_period_us != 0) {
        out.cpu_period_us = *limits.cpu_period_us;
    }
    if (limits.cpu_shares && *limits.cpu_shares != 0) {
        out.cpu_weight = cgroups::weight_from_shares(*limits.cpu_shares);
    }
    if (limits.cpuset_cpus && !limits.cpuset_cpus->empty()) {
        out.cpus = limits.cpuset_cpus;
    }
    if (limits.pids) {
        out.pids = positive(*limits.pids);
    }
    return out;
}

int64_t host_pids(int64_t guest_pids) {
    // Each guest task is a host task; the platform's clean processes and service threads count
    // there too. The sentry holds the exact limit.
    return guest_pids > 0 ? guest_pids * 3 + 64 : -1;
}

int own_oom_score() {
    const ScopedFd fd(::open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC));
    char text[16] = "0";
    const ssize_t n = fd ? ::read(fd.get(), text, sizeof text - 1) : -1;
    text[n > 0 ? n : 1] = '\0';
    return atoi(text);
}

void set_oom_score(const cgroups::Manager& manager, const std::string& cgroup, int value) {
    const std::string text = std::to_string(value);
    // A child that is being forked just now has its parent's old value: again until all have it.
    for (int attempt = 0; attempt < 10; attempt++) {
        bool again = false;
        for (const pid_t pid : manager.processes(cgroup)) {
            const std::string path = "/proc/" + std::to_string(pid) + "/oom_score_adj";
            const ScopedFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
            char old[16];
            const ssize_t n = fd ? ::read(fd.get(), old, sizeof old - 1) : -1;
            if (n <= 0) {
                continue;  // it has ended
            }
            old[n] = '\0';
            if (atoi(old) == value) {
                continue;
            }
            if (::write(fd.get(), text.data(), text.size()) < 0) {
                LOG(kDebug, "runtime", "oom_score_adj of %d: %s", pid, strerror(errno));
                return;
            }
            again = true;
        }
        if (!again) {
            return;
        }
    }
}

std::string oci_state_json(const ContainerInfo& info) {
    Json json = {{"ociVersion", "1.2.0"},
                 {"id", info.id},
                 {"status", control::container_state_name(info.state)},
                 {"bundle", info.bundle},
                 {"annotations", info.annotations}};
    json["pid"] = info.state == ContainerState::kStopped ? 0 : info.sentry_pid;
    return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace moat::runtime
