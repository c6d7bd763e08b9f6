// Clocks and sleeping. What only concerns the caller (CPU clocks) is answered by the host kernel in
// the guest's own host thread.

#include <algorithm>

#include "kernel/fs/proc/task_view.h"
#include "kernel/syscalls/handlers_io.h"
#include "kernel/syscalls/io_common.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"
#include "kernel/task/task_table.h"
#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

namespace {

bool is_readable_clock(int clock) {
    switch (clock) {
        case CLOCK_MONOTONIC_RAW:
        case CLOCK_REALTIME_COARSE:
        case CLOCK_MONOTONIC_COARSE:
            return true;
        default:
            return is_timer_clock(clock);
    }
}

/// A guest's process is a process of the host and its threads are threads: the host's CPU clocks of
/// the caller are right. Other processes' clocks (negative numbers) carry pids, the guest's:
/// other_cpu_ns().
bool is_own_cpu_clock(int clock) {
    return clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID;
}

/// The time that a clock of clock_getcpuclockid(3) or pthread_getcpuclockid(3) shows (Linux:
/// include/linux/posix-timers.h: pid inverted, then one bit for "thread", two for the kind).
Result<int64_t> other_cpu_ns(Task& task, int clock) {
    if (clock >= 0) {
        return Errno(EINVAL);
    }
    if ((clock & 7) == 3) {
        return unsupported("clock of a descriptor", EINVAL);
    }
    if ((clock & 3) == 3) {
        return Errno(EINVAL);
    }
    const int32_t id = ~(clock >> 3);
    if ((clock & 4) == 0) {
        const RefPtr<ThreadGroup> group =
            id == 0 ? RefPtr<ThreadGroup>(&task.group()) : task.pid_namespace().find_group(id);
        return group ? Result<int64_t>(static_cast<int64_t>(group->cpu_ns())) : Errno(EINVAL);
    }
    const RefPtr<Task> thread = id == 0 ? RefPtr<Task>(&task) : task.pid_namespace().find_task(id);
    if (!thread || &thread->group() != &task.group()) {
        return Errno(EINVAL);  // only its own process's threads
    }
    return static_cast<int64_t>(cpu_times(*thread).user_ns);
}

/// Sleeps until `deadline_ns` of CLOCK_MONOTONIC. `remaining`: null for absolute sleeps.
Result<int64_t> sleep_until(Task& task, int64_t deadline_ns, UserPtr<timespec> remaining) {
    if (const auto resumed = task.resumed_deadline()) {
        deadline_ns = resumed->ns;
    }
    if (deadline_ns <= monotonic_ns()) {
        return 0;
    }
    return block(task, {}, Deadline::at(deadline_ns),
                 [deadline_ns, remaining](Task& self, Wake wake) -> Result<int64_t> {
                     if (wake == Wake::kTimeout) {
                         return 0;
                     }
                     const int64_t left = deadline_ns - monotonic_ns();
                     if (left <= 0) {
                         return 0;
                     }
                     if (wake == Wake::kReady) {
                         return kBlocked;
                     }
                     if (remaining) {
                         TRY(self.copy_out(remaining, to_timespec(left)));
                     }
                     return kRestartNoHand;
                 });
}

}  // namespace

Result<int64_t> sys_time(Task& task, UserPtr<int64_t> t) {
    // Seconds by the tick's clock, as on Linux: never ahead of it.
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (t) {
        TRY(task.copy_out(t, int64_t{now.tv_sec}));
    }
    return now.tv_sec;
}

Status sys_gettimeofday(Task& task, UserPtr<timeval> tv, UserPtr<struct timezone> tz) {
    if (tv) {
        const timespec now = realtime();
        TRY(task.copy_out(tv, timeval{now.tv_sec, now.tv_nsec / 1000}));
    }
    if (tz) {
        TRY(task.copy_out(tz, (struct timezone){}));
    }
    return {};
}

Status sys_clock_gettime(Task& task, int clock, UserPtr<timespec> t) {
    if (is_own_cpu_clock(clock)) {
        return kContinueOnHost;
    }
    if (!is_readable_clock(clock)) {
        return task.copy_out(t, to_timespec(TRY(other_cpu_ns(task, clock))));
    }
    timespec now{};
    if (::clock_gettime(clock, &now) != 0) {
        return Errno(errno);
    }
    return task.copy_out(t, now);
}

Status sys_clock_getres(Task& task, int clock, UserPtr<timespec> t) {
    if (!is_readable_clock(clock) && !is_own_cpu_clock(clock)) {
        TRY(other_cpu_ns(task, clock));
        clock = CLOCK_PROCESS_CPUTIME_ID;
    }
    timespec resolution{};
    if (::clock_getres(clock, &resolution) != 0) {
        return Errno(errno);
    }
    if (t) {
        TRY(task.copy_out(t, resolution));
    }
    return {};
}

Result<int64_t> sys_nanosleep(Task& task, UserPtr<const timespec> wanted,
                              UserPtr<timespec> remaining) {
    const timespec t = TRY(task.copy_in(wanted));
    if (!is_valid(t)) {
        return Errno(EINVAL);
    }
    return sleep_until(task, add_saturating(monotonic_ns(), to_ns(t)), remaining);
}

Result<int64_t> sys_clock_nanosleep(Task& task, int clock, uint32_t flags,
                                    UserPtr<const timespec> wanted, UserPtr<timespec> remaining) {
    if (!is_timer_clock(clock)) {
        if (clock == CLOCK_PROCESS_CPUTIME_ID) {
            return unsupported("clock_nanosleep CLOCK_PROCESS_CPUTIME_ID", EOPNOTSUPP);
        }
        // Linux: these clocks exist but cannot be slept by.
        return is_readable_clock(clock) ? Errno(EOPNOTSUPP) : Errno(EINVAL);
    }
    const timespec t = TRY(task.copy_in(wanted));
    if (!is_valid(t)) {
        return Errno(EINVAL);
    }
    if ((flags & TIMER_ABSTIME) != 0) {
        return sleep_until(task, monotonic_deadline(clock, to_ns(t)), {});
    }
    return sleep_until(task, add_saturating(monotonic_ns(), to_ns(t)), remaining);
}

}  // namespace moat::kernel
