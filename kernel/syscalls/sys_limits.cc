#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>

#include "kernel/fs/proc/machine.h"
#include "kernel/fs/proc/task_view.h"
#include "kernel/mm/address_space.h"
#include "kernel/syscalls/handlers_misc.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/direct_calls.h"
#include "kernel/task/task.h"
#include "kernel/task/task_table.h"
#include "kernel/time/process_timers.h"

namespace moat::kernel {

namespace {

constexpr uint64_t kMaxOpenFiles = 1 << 20;  // fs.nr_open

timeval to_timeval(uint64_t ns) {
    return {static_cast<time_t>(ns / 1'000'000'000),
            static_cast<suseconds_t>(ns / 1000 % 1'000'000)};
}

RlimitPair to_pair(const rlimit& limit) { return {limit.rlim_cur, limit.rlim_max}; }

Status change_limit(Task& task, ThreadGroup& group, uint32_t resource, const RlimitPair& wanted) {
    if (wanted.soft > wanted.hard) {
        return Errno(EINVAL);
    }
    if (resource == RLIMIT_NOFILE && wanted.hard > kMaxOpenFiles) {
        return Errno(EPERM);
    }
    const rlimit old = group.limit(static_cast<int>(resource));
    if (wanted.hard > old.rlim_max && !task.has_capability(CAP_SYS_RESOURCE)) {
        return Errno(EPERM);
    }
    group.set_limit(static_cast<int>(resource), {wanted.soft, wanted.hard});
    if (resource == RLIMIT_CPU) {
        process_timers_cpu_limit(group);
    }
    if (resource == RLIMIT_AS || resource == RLIMIT_DATA) {
        for (const auto& member : TaskTable::tasks_of(group)) {
            review_direct_calls(*member);
        }
    }
    return {};
}

/// The stack was mapped as a whole at execve: below a new, lower limit it is taken away, but
/// nothing near what the caller uses now. A limit that is raised again counts from the next execve
/// on. Only where the stack is surely the caller's own: alone in its process, and that in its
/// memory.
Status cut_stack(Task& task, uint64_t limit) {
    constexpr uint64_t kSpare = 64 << 10;  // red zone and signal frames
    AddressSpace::Layout layout = task.mm().layout();
    const uint64_t top = layout.stack_top, sp = task.registers().rsp;
    if (limit >= top - layout.stack_bottom || sp <= layout.stack_bottom + kSpare || sp > top ||
        task.mm().users() > 1 || TaskTable::tasks_of(task.group()).size() > 1) {
        return {};
    }
    const uint64_t bottom = std::min(page_down(top - limit), page_down(sp - kSpare));
    if (bottom <= layout.stack_bottom) {
        return {};
    }
    const platform::Order order{SYS_mprotect,
                                {layout.stack_bottom, bottom - layout.stack_bottom, PROT_NONE}};
    const auto result = task.thread().run_orders(std::span(&order, 1));
    task.moved_on();
    TRY(result);
    if (*result == 0) {
        layout.stack_bottom = bottom;
        task.mm().set_layout(std::move(layout));
    }
    return {};
}

}  // namespace

Status sys_getrlimit(Task& task, uint32_t resource, UserPtr<RlimitPair> limit) {
    if (resource >= RLIM_NLIMITS) {
        return Errno(EINVAL);
    }
    return task.copy_out(limit, to_pair(task.group().limit(static_cast<int>(resource))));
}

Status sys_setrlimit(Task& task, uint32_t resource, UserPtr<const RlimitPair> limit) {
    const RlimitPair wanted = TRY(task.copy_in(limit));
    if (resource >= RLIM_NLIMITS) {
        return Errno(EINVAL);
    }
    if (resource == RLIMIT_STACK && !task.in_stub()) {
        return kNeedStub;
    }
    TRY(change_limit(task, task.group(), resource, wanted));
    return resource == RLIMIT_STACK ? cut_stack(task, wanted.soft) : Status();
}

Status sys_prlimit64(Task& task, int32_t pid, uint32_t resource,
                     UserPtr<const RlimitPair> new_limit, UserPtr<RlimitPair> old_limit) {
    if (resource >= RLIM_NLIMITS) {
        return Errno(EINVAL);
    }
    std::optional<RlimitPair> wanted;
    if (new_limit) {
        wanted = TRY(task.copy_in(new_limit));
    }
    RefPtr<ThreadGroup> group(&task.group());
    if (pid != 0 && pid != task.tid()) {
        const auto target = task.pid_namespace().find_task(pid);
        if (!target) {
            return Errno(ESRCH);
        }
        const auto mine = task.credentials();
        const auto theirs = target->credentials();
        const bool same = mine->uid == theirs->euid && mine->uid == theirs->suid &&
                          mine->uid == theirs->uid && mine->gid == theirs->egid &&
                          mine->gid == theirs->sgid && mine->gid == theirs->gid;
        if (!same && !mine->has_capability(CAP_SYS_RESOURCE)) {
            return Errno(EPERM);
        }
        group = RefPtr<ThreadGroup>(&target->group());
    }
    const bool own_stack = resource == RLIMIT_STACK && group == &task.group();
    if (wanted && own_stack && !task.in_stub()) {
        return kNeedStub;
    }
    const RlimitPair old = to_pair(group->limit(static_cast<int>(resource)));
    if (wanted) {
        TRY(change_limit(task, *group, resource, *wanted));
        if (own_stack) {
            TRY(cut_stack(task, wanted->soft));
        }
    }
    if (old_limit) {
        TRY(task.copy_out(old_limit, old));
    }
    return {};
}

Status sys_getrusage(Task& task, int32_t who, UserPtr<struct rusage> usage) {
    struct rusage r {};
    switch (who) {
        case RUSAGE_SELF:
        case RUSAGE_THREAD: {
            const CpuTimes cpu = who == RUSAGE_SELF ? cpu_times(task.group()) : cpu_times(task);
            r.ru_utime = to_timeval(cpu.user_ns);
            r.ru_stime = to_timeval(cpu.system_ns);
            r.ru_maxrss = static_cast<long>(resident_bytes(task) >> 10);
            break;
        }
        case RUSAGE_CHILDREN: {
            const CpuTimes cpu = children_cpu_times(task.group());
            r.ru_utime = to_timeval(cpu.user_ns);
            r.ru_stime = to_timeval(cpu.system_ns);
            break;
        }
        default:
            return Errno(EINVAL);
    }
    return task.copy_out(usage, r);
}

Result<int64_t> sys_times(Task& task, UserPtr<struct tms> times) {
    constexpr uint64_t kTickNs = 1'000'000'000 / kClockTicksPerSecond;
    if (times) {
        const CpuTimes own = cpu_times(task.group());
        const CpuTimes children = children_cpu_times(task.group());
        tms t{};
        t.tms_utime = static_cast<clock_t>(own.user_ns / kTickNs);
        t.tms_stime = static_cast<clock_t>(own.system_ns / kTickNs);
        t.tms_cutime = static_cast<clock_t>(children.user_ns / kTickNs);
        t.tms_cstime = static_cast<clock_t>(children.system_ns / kTickNs);
        TRY(task.copy_out(times, t));
    }
    return uptime_ns() / static_cast<int64_t>(kTickNs);
}

}  // namespace moat::kernel
