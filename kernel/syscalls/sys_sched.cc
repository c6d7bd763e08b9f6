// Scheduling as far as it can be asked for. The host schedules guests' threads within their cgroup;
// what guests set is kept and told, but does not change that (the rows in the table say so).

#include <linux/capability.h>
#include <linux/sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <functional>

#include "kernel/fs/proc/machine.h"
#include "kernel/fs/proc/task_view.h"
#include "kernel/syscalls/handlers_misc.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/container.h"
#include "kernel/task/task.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

namespace {

constexpr int32_t kNormal = 0, kFifo = 1, kRoundRobin = 2, kBatch = 3, kIdle = 5, kDeadline = 6;

Result<RefPtr<Task>> find_target(Task& task, int32_t pid) {
    if (pid < 0) {
        return Errno(EINVAL);
    }
    if (pid == 0) {
        return RefPtr<Task>(&task);
    }
    auto target = task.pid_namespace().find_task(pid);
    if (!target) {
        return Errno(ESRCH);
    }
    return target;
}

bool may_change(Task& task, Task& target) {
    const auto mine = task.credentials();
    const auto theirs = target.credentials();
    return mine->euid == theirs->euid || mine->euid == theirs->uid ||
           mine->has_capability(CAP_SYS_NICE);
}

/// The tasks that getpriority(2) and ioprio_get(2) mean: one, those of a process group, or else
/// those of a user. ESRCH: none.
Result<std::vector<RefPtr<Task>>> targets_of(Task& task, bool process, bool group, int32_t who) {
    std::vector<RefPtr<Task>> targets;
    auto add_process = [&](const ThreadGroup& g) {
        for (auto& t : TaskTable::tasks_of(g)) {
            targets.push_back(std::move(t));
        }
    };
    if (process) {
        targets.push_back(TRY(find_target(task, who)));
    } else if (group) {
        const auto pg = who == 0 ? TaskTable::process_group_of(task.group())
                                 : task.pid_namespace().find_process_group(who);
        if (pg) {
            for (const auto& member : TaskTable::members_of(*pg)) {
                add_process(*member);
            }
        }
    } else {
        const uint32_t uid = who == 0 ? task.credentials()->uid : static_cast<uint32_t>(who);
        for (const auto& g : task.pid_namespace().groups()) {
            const auto leader = g->leader();
            if (leader && leader->credentials()->uid == uid) {
                add_process(*g);
            }
        }
    }
    if (targets.empty()) {
        return Errno(ESRCH);
    }
    return targets;
}

Status check_policy(Task& task, int32_t policy, int32_t priority) {
    switch (policy) {
        case kNormal:
        case kBatch:
        case kIdle:
            return priority == 0 ? Status() : Status(Errno(EINVAL));
        case kFifo:
        case kRoundRobin:
            if (priority < 1 || priority > 99) {
                return Errno(EINVAL);
            }
            return task.has_capability(CAP_SYS_NICE)
                       ? unsupported("sched_setscheduler to a real-time policy", EPERM)
                       : Errno(EPERM);
        case kDeadline:
            return unsupported("sched_setattr to SCHED_DEADLINE", EPERM);
        default:
            return Errno(EINVAL);
    }
}

/// Beyond the limit RLIMIT_NICE sets (getrlimit(2)) only CAP_SYS_NICE makes a task nicer to itself.
bool may_nice(Task& task, Task& target, int32_t nice) {
    return nice >= target.scheduling.nice ||
           nice >= 20 - static_cast<int64_t>(std::min<uint64_t>(target.rlimit(RLIMIT_NICE), 40)) ||
           task.has_capability(CAP_SYS_NICE);
}

}  // namespace

Result<int64_t> sys_getpriority(Task& task, int32_t which, int32_t who) {
    if (which < PRIO_PROCESS || which > PRIO_USER) {
        return Errno(EINVAL);
    }
    int32_t lowest = 20;
    for (const auto& t : TRY(targets_of(task, which == PRIO_PROCESS, which == PRIO_PGRP, who))) {
        lowest = std::min(lowest, t->scheduling.nice.load());
    }
    return 20 - lowest;  // the raw call's 40..1 (getpriority(2), C library/kernel differences)
}

Status sys_setpriority(Task& task, int32_t which, int32_t who, int32_t nice) {
    if (which < PRIO_PROCESS || which > PRIO_USER) {
        return Errno(EINVAL);
    }
    nice = std::clamp(nice, -20, 19);
    Status result = {};
    for (const auto& t : TRY(targets_of(task, which == PRIO_PROCESS, which == PRIO_PGRP, who))) {
        if (!may_change(task, *t)) {
            result = Errno(EPERM);
        } else if (!may_nice(task, *t, nice)) {
            result = Errno(EACCES);
        } else {
            t->scheduling.nice = nice;
        }
    }
    return result;
}

Result<int64_t> sys_ioprio_get(Task& task, int32_t which, int32_t who) {
    if (which < 1 || which > 3) {
        return Errno(EINVAL);
    }
    return TRY(targets_of(task, which == 1, which == 2, who))[0]->scheduling.io_priority.load();
}

Status sys_ioprio_set(Task& task, int32_t which, int32_t who, int32_t priority) {
    const int32_t io_class = priority >> 13;
    const int32_t level = priority & 7;
    if (which < 1 || which > 3 || io_class < 0 || io_class > 3 || (io_class == 0 && level != 0)) {
        return Errno(EINVAL);
    }
    if (io_class == 1 && !task.has_capability(CAP_SYS_ADMIN) &&
        !task.has_capability(CAP_SYS_NICE)) {
        return Errno(EPERM);
    }
    for (const auto& t : TRY(targets_of(task, which == 1, which == 2, who))) {
        if (!may_change(task, *t)) {
            return Errno(EPERM);
        }
        t->scheduling.io_priority = priority;
    }
    return {};
}

// The host's scheduler is the guest's.
Result<int64_t> sys_sched_yield(Task&) { return kContinueOnHost; }

Status sys_sched_setparam(Task& task, int32_t pid, UserPtr<const SchedParam> param) {
    if (!param) {
        return Errno(EINVAL);
    }
    const SchedParam wanted = TRY(task.copy_in(param));
    const auto target = TRY(find_target(task, pid));
    return check_policy(task, target->scheduling.policy, wanted.priority);
}

Status sys_sched_getparam(Task& task, int32_t pid, UserPtr<SchedParam> param) {
    if (!param) {
        return Errno(EINVAL);
    }
    TRY(find_target(task, pid));
    return task.copy_out(param, {0});
}

Status sys_sched_setscheduler(Task& task, int32_t pid, int32_t policy,
                              UserPtr<const SchedParam> param) {
    if (!param || policy < 0) {
        return Errno(EINVAL);
    }
    policy &= ~0x40000000;  // SCHED_RESET_ON_FORK: nothing that a fork could reset is ever set
    const SchedParam wanted = TRY(task.copy_in(param));
    const auto target = TRY(find_target(task, pid));
    TRY(check_policy(task, policy, wanted.priority));
    if (!may_change(task, *target)) {
        return Errno(EPERM);
    }
    target->scheduling.policy = policy;
    return {};
}

Result<int64_t> sys_sched_getscheduler(Task& task, int32_t pid) {
    return TRY(find_target(task, pid))->scheduling.policy.load();
}

Result<int64_t> sys_sched_get_priority_max(Task&, int32_t policy) {
    switch (policy) {
        case kFifo:
        case kRoundRobin:
            return 99;
        case kNormal:
        case kBatch:
        case kIdle:
        case kDeadline:
            return 0;
        default:
            return Errno(EINVAL);
    }
}

Result<int64_t> sys_sched_get_priority_min(Task&, int32_t policy) {
    switch (policy) {
        case kFifo:
        case kRoundRobin:
            return 1;
        case kNormal:
        case kBatch:
        case kIdle:
        case kDeadline:
            return 0;
        default:
            return Errno(EINVAL);
    }
}

Status sys_sched_rr_get_interval(Task& task, int32_t pid, UserPtr<timespec> interval) {
    TRY(find_target(task, pid));
    return task.copy_out(interval, timespec{0, 4'000'000});  // a slice at HZ=250
}

Status sys_sched_setaffinity(Task& task, int32_t pid, uint32_t size, GuestAddr mask) {
    uint64_t wanted = 0;
    TRY(task.copy_in_bytes(&wanted, mask, std::min<size_t>(size, sizeof wanted)));
    const auto target = TRY(find_target(task, pid));
    if (!may_change(task, *target)) {
        return Errno(EPERM);
    }
    wanted &= visible_cpus(target->container());
    if (wanted == 0) {
        return Errno(EINVAL);
    }
    target->scheduling.affinity = wanted;
    return {};
}

Result<int64_t> sys_sched_getaffinity(Task& task, int32_t pid, uint32_t size, GuestAddr mask) {
    const uint32_t cpus = machine().cpus;
    if (size * uint64_t{8} < cpus || size % sizeof(uint64_t) != 0) {
        return Errno(EINVAL);
    }
    const auto target = TRY(find_target(task, pid));
    const size_t words = (cpus + 63) / 64;
    std::vector<uint64_t> shown(words, 0);
    const uint64_t allowed = allowed_cpus(*target);
    for (uint32_t cpu = 0; cpu < cpus; cpu++) {
        if (cpu >= 64 || (allowed >> cpu & 1) != 0) {
            shown[cpu / 64] |= 1ull << cpu % 64;
        }
    }
    const size_t bytes = std::min<size_t>(words * sizeof(uint64_t), size);
    TRY(task.copy_out_bytes(mask, shown.data(), bytes));
    return static_cast<int64_t>(bytes);
}

Status sys_sched_setattr(Task& task, int32_t pid, UserPtr<const SchedAttributes> attributes,
                         uint32_t flags) {
    constexpr uint32_t kOldest = 48;
    if (!attributes || flags != 0) {
        return Errno(EINVAL);
    }
    SchedAttributes a{};
    TRY(task.copy_in_bytes(&a.size, attributes.address(), sizeof a.size));
    const uint32_t size = a.size == 0 ? kOldest : a.size;
    if (size < kOldest || size > kPageSize) {
        return Errno(E2BIG);
    }
    TRY(task.copy_in_bytes(&a, attributes.address(), std::min<size_t>(size, sizeof a)));
    const auto target = TRY(find_target(task, pid));
    TRY(check_policy(task, static_cast<int32_t>(a.policy), static_cast<int32_t>(a.priority)));
    if (a.nice < -20 || a.nice > 19) {
        return Errno(EINVAL);
    }
    if (!may_change(task, *target) || !may_nice(task, *target, a.nice)) {
        return Errno(EPERM);
    }
    target->scheduling.policy = static_cast<int32_t>(a.policy);
    target->scheduling.nice = a.nice;
    return {};
}

Status sys_sched_getattr(Task& task, int32_t pid, GuestAddr attributes, uint32_t size,
                         uint32_t flags) {
    if (to_integer(attributes) == 0 || flags != 0 || size < 48 || size > kPageSize) {
        return Errno(EINVAL);
    }
    const auto target = TRY(find_target(task, pid));
    SchedAttributes a{};
    a.size = static_cast<uint32_t>(std::min<size_t>(size, sizeof a));
    a.policy = static_cast<uint32_t>(target->scheduling.policy.load());
    a.nice = target->scheduling.nice;
    a.util_max = 1024;
    return task.copy_out_bytes(attributes, &a, a.size);
}

}  // namespace moat::kernel
