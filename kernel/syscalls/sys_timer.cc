// Interval timers, alarm(2) and POSIX timers.

#include <sys/resource.h>

#include <algorithm>

#include "kernel/syscalls/handlers_io.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task_table.h"
#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"
#include "kernel/time/process_timers.h"

namespace moat::kernel {

namespace {

int64_t to_ns(const timeval& t) {
    return moat::kernel::to_ns(timespec{t.tv_sec, t.tv_usec * 1000});
}
timeval to_timeval(int64_t ns) { return {ns / 1'000'000'000, ns % 1'000'000'000 / 1000}; }
bool is_valid_timeval(const timeval& t) {
    return t.tv_sec >= 0 && t.tv_usec >= 0 && t.tv_usec < 1'000'000;
}

itimerval to_itimerval(const IntervalTimer::Setting& setting) {
    itimerval value{};
    value.it_interval = to_timeval(setting.interval_ns);
    // A timer that is armed never shows zero.
    value.it_value =
        to_timeval(setting.remaining_ns == 0 ? 0 : std::max<int64_t>(setting.remaining_ns, 1000));
    return value;
}

itimerspec to_itimerspec(const IntervalTimer::Setting& setting) {
    itimerspec value{};
    value.it_interval = to_timespec(setting.interval_ns);
    value.it_value = to_timespec(setting.remaining_ns);
    return value;
}

Status check_which(int which) {
    return which == ITIMER_REAL || which == ITIMER_VIRTUAL || which == ITIMER_PROF
               ? Status()
               : Status(Errno(EINVAL));
}

IntervalTimer& timer_of(ProcessTimers& timers, int which) {
    return which == ITIMER_REAL      ? timers.real()
           : which == ITIMER_VIRTUAL ? timers.cpu(CpuTimer::What::kVirtual)
                                     : timers.cpu(CpuTimer::What::kProf);
}

Result<RefPtr<PosixTimer>> get_timer(Task& task, int32_t id) {
    const auto timers = ProcessTimers::find(task.group());
    if (!timers) {
        return Errno(EINVAL);
    }
    return timers->get(id);
}

}  // namespace

Status sys_getitimer(Task& task, int which, UserPtr<itimerval> value) {
    TRY(check_which(which));
    const auto timers = ProcessTimers::find(task.group());
    return task.copy_out(value,
                         timers ? to_itimerval(timer_of(*timers, which).get()) : itimerval{});
}

Status sys_setitimer(Task& task, int which, UserPtr<const itimerval> value,
                     UserPtr<itimerval> old) {
    itimerval wanted{};  // a null pointer disarms (Linux: "misfeature support will be removed")
    if (value) {
        wanted = TRY(task.copy_in(value));
    }
    if (!is_valid_timeval(wanted.it_value) || !is_valid_timeval(wanted.it_interval)) {
        return Errno(EINVAL);
    }
    TRY(check_which(which));
    const int64_t first = to_ns(wanted.it_value);
    const auto timers = ProcessTimers::of(task.group());
    IntervalTimer& timer = timer_of(*timers, which);
    const IntervalTimer::Setting before = timer.set(
        first != 0 ? add_saturating(timer.now_ns(), first) : 0, to_ns(wanted.it_interval));
    if (old) {
        TRY(task.copy_out(old, to_itimerval(before)));
    }
    return {};
}

Result<int64_t> sys_alarm(Task& task, uint32_t seconds) {
    const int64_t ns = int64_t{seconds} * 1'000'000'000;
    const auto timers =
        seconds != 0 ? ProcessTimers::of(task.group()) : ProcessTimers::find(task.group());
    if (!timers) {
        return 0;
    }
    const IntervalTimer::Setting before =
        timers->real().set(ns != 0 ? add_saturating(monotonic_ns(), ns) : 0, 0);
    // To the nearest second, but an armed timer never shows zero (Linux: alarm_setitimer).
    const int64_t left = (before.remaining_ns + 500'000'000) / 1'000'000'000;
    return before.remaining_ns != 0 ? std::max<int64_t>(left, 1) : 0;
}

Status sys_timer_create(Task& task, int clock, UserPtr<const UserSigevent> event,
                        UserPtr<int32_t> id) {
    // clock_getcpuclockid(3): of processes, by pid.
    if (clock < 0 && (clock & 7) == 2) {
        const int32_t pid = ~(clock >> 3);
        if (pid == 0 || pid == task.pid()) {
            clock = CLOCK_PROCESS_CPUTIME_ID;
        }
    }
    if (!is_timer_clock(clock) && clock != CLOCK_PROCESS_CPUTIME_ID) {
        return clock < 0 || clock == CLOCK_THREAD_CPUTIME_ID
                   ? unsupported("timer_create by CPU time of a thread or another process", EINVAL)
                   : Errno(clock <= CLOCK_TAI ? EOPNOTSUPP : EINVAL);
    }
    TimerNotify notify;
    const bool value_is_id = event.is_null();
    if (event) {
        const UserSigevent wanted = TRY(task.copy_in(event));
        notify.signal = wanted.signal;
        notify.value = wanted.value;
        switch (wanted.notify) {
            case SIGEV_NONE:
                notify.how = TimerNotify::How::kNothing;
                break;
            case SIGEV_SIGNAL:
            case SIGEV_THREAD:  // the C library's affair: to the kernel it is SIGEV_SIGNAL
                notify.how = TimerNotify::How::kProcess;
                break;
            case SIGEV_SIGNAL | SIGEV_THREAD_ID: {
                notify.how = TimerNotify::How::kThread;
                notify.thread = task.pid_namespace().find_task(wanted.thread);
                if (!notify.thread || &notify.thread->group() != &task.group()) {
                    return Errno(EINVAL);
                }
                break;
            }
            default:
                return Errno(EINVAL);
        }
        if (notify.how != TimerNotify::How::kNothing &&
            (wanted.signal < 1 || wanted.signal > kSignalCount)) {
            return Errno(EINVAL);
        }
    }
    // Linux counts a timer's preallocated signal against RLIMIT_SIGPENDING.
    const uint64_t limit = std::min<uint64_t>(task.rlimit(RLIMIT_SIGPENDING), 65536);
    const auto timers = ProcessTimers::of(task.group());
    const int32_t made = TRY(timers->create(clock, std::move(notify), value_is_id, limit));
    const Status copied = task.copy_out(id, made);
    if (!copied.ok()) {
        (void)timers->remove(made);
    }
    return copied;
}

Status sys_timer_settime(Task& task, int32_t id, uint32_t flags, UserPtr<const itimerspec> value,
                         UserPtr<itimerspec> old) {
    if (!value) {
        return Errno(EINVAL);
    }
    const itimerspec wanted = TRY(task.copy_in(value));
    if (!is_valid(wanted.it_value) || !is_valid(wanted.it_interval)) {
        return Errno(EINVAL);
    }
    const auto timer = TRY(get_timer(task, id));
    const int64_t first = to_ns(wanted.it_value);
    int64_t deadline = 0;
    if (first != 0) {
        const bool by_cpu = timer->clock() == CLOCK_PROCESS_CPUTIME_ID;
        deadline = (flags & TIMER_ABSTIME) == 0 ? add_saturating(timer->now_ns(), first)
                   : by_cpu                     ? first
                                                : monotonic_deadline(timer->clock(), first);
        deadline = std::max<int64_t>(deadline, 1);
    }
    timer->reset_overrun();
    const auto before = timer->set(deadline, to_ns(wanted.it_interval));
    if (old) {
        TRY(task.copy_out(old, to_itimerspec(before)));
    }
    return {};
}

Status sys_timer_gettime(Task& task, int32_t id, UserPtr<itimerspec> value) {
    const auto timer = TRY(get_timer(task, id));
    return task.copy_out(value, to_itimerspec(timer->get()));
}

Result<int64_t> sys_timer_getoverrun(Task& task, int32_t id) {
    return TRY(get_timer(task, id))->overrun();
}

Status sys_timer_delete(Task& task, int32_t id) {
    const auto timers = ProcessTimers::find(task.group());
    if (!timers) {
        return Errno(EINVAL);
    }
    return timers->remove(id);
}

}  // namespace moat::kernel
