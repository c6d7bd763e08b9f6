#include "kernel/time/process_timers.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "kernel/fs/proc/machine.h"
#include "kernel/task/task.h"
#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

namespace {

struct Table {
    Mutex<LockRank::kProcessTimers> mu;
    std::unordered_map<ThreadGroup*, RefPtr<ProcessTimers>> rows GUARDED_BY(mu);
};

Table& table() {
    static Table* const instance = new Table;
    return *instance;
}

/// Processor time passes no faster than all CPUs together, so half of what is left, or more, is
/// safe to sleep. A process that does nothing is looked at ever less often.
int64_t next_cpu_look(int64_t now_ns, int64_t next_ns, uint32_t idle) {
    constexpr int64_t kShortest = 1'000'000, kLongestIdle = 64'000'000;
    const int64_t least = std::max<int64_t>(next_ns - now_ns, 0) / machine().cpus;
    return add_saturating(monotonic_ns(),
                          std::max(least, std::min(kShortest << std::min(idle, 6u), kLongestIdle)));
}

}  // namespace

// ---------------------------------------------------------------- POSIX timers

PosixTimer::PosixTimer(RefPtr<ThreadGroup> group, int32_t id, int clock, TimerNotify notify)
    : group_(std::move(group)), id_(id), clock_(clock), notify_(std::move(notify)) {}

PosixTimer::~PosixTimer() = default;

int64_t PosixTimer::now_ns() {
    return clock_ == CLOCK_PROCESS_CPUTIME_ID ? static_cast<int64_t>(group_->cpu_ns())
                                              : IntervalTimer::now_ns();
}

int64_t PosixTimer::next_look_ns(int64_t now_ns, int64_t next_ns, uint32_t idle) {
    return clock_ == CLOCK_PROCESS_CPUTIME_ID ? next_cpu_look(now_ns, next_ns, idle)
                                              : IntervalTimer::next_look_ns(now_ns, next_ns, idle);
}

bool PosixTimer::signal_is_pending() {
    const RefPtr<Task> task =
        notify_.how == TimerNotify::How::kThread ? notify_.thread : group_->leader();
    return task && (pending_signals(*task) & signal_bit(notify_.signal)) != 0;
}

void PosixTimer::on_expiry(uint64_t periods) {
    if (notify_.how == TimerNotify::How::kNothing) {
        return;
    }
    if (signal_is_pending()) {
        MutexLock lock(mu_);
        overrun_ += periods;
        return;
    }
    {
        MutexLock lock(mu_);
        overrun_ = periods - 1;
    }
    SignalInfo info;
    info.signo = notify_.signal;
    info.code = SI_TIMER;
    info.timer.timer_id = id_;
    info.timer.overrun = static_cast<int32_t>(std::min<uint64_t>(periods - 1, INT32_MAX));
    info.timer.value = notify_.value;
    // Nobody is left to be told when it fails.
    if (notify_.how == TimerNotify::How::kThread) {
        (void)send_signal(*notify_.thread, info);
    } else {
        (void)send_signal(*group_, info);
    }
}

void PosixTimer::reset_overrun() {
    MutexLock lock(mu_);
    overrun_ = 0;
}

int32_t PosixTimer::overrun() {
    MutexLock lock(mu_);
    return static_cast<int32_t>(std::min<uint64_t>(overrun_, INT32_MAX));  // DELAYTIMER_MAX
}

void PosixTimer::signal_taken(SignalInfo& info) { info.timer.overrun = overrun(); }

// ---------------------------------------------------------------- a process's timers

RealTimer::~RealTimer() = default;

void RealTimer::on_expiry(uint64_t) {
    // Nobody is left to be told when it fails.
    (void)send_signal(*group_, SignalInfo::from_kernel(SIGALRM));
}

CpuTimer::~CpuTimer() = default;

int64_t CpuTimer::now_ns() { return static_cast<int64_t>(group_->cpu_ns()); }

int64_t CpuTimer::next_look_ns(int64_t now_ns, int64_t next_ns, uint32_t idle) {
    return next_cpu_look(now_ns, next_ns, idle);
}

void CpuTimer::on_expiry(uint64_t) {
    int signal = what_ == What::kVirtual ? SIGVTALRM : SIGPROF;
    if (what_ == What::kLimit) {
        const rlimit limit = group_->limit(RLIMIT_CPU);
        const auto used = static_cast<uint64_t>(now_ns()) / 1'000'000'000;
        signal = limit.rlim_max != RLIM_INFINITY && used >= limit.rlim_max ? SIGKILL : SIGXCPU;
    }
    // Nobody is left to be told when it fails.
    (void)send_signal(*group_, SignalInfo::from_kernel(signal));
}

void process_timers_cpu_limit(ThreadGroup& group) {
    const uint64_t soft = group.limit(RLIMIT_CPU).rlim_cur;
    const bool limited = soft != RLIM_INFINITY;
    if (const auto timers = limited ? ProcessTimers::of(group) : ProcessTimers::find(group)) {
        // Each second anew, until the hard limit (setrlimit(2)).
        constexpr int64_t kSecond = 1'000'000'000;
        const int64_t first = soft >= INT64_MAX / kSecond
                                  ? INT64_MAX
                                  : std::max<int64_t>(static_cast<int64_t>(soft) * kSecond, 1);
        timers->cpu(CpuTimer::What::kLimit).set(limited ? first : 0, limited ? kSecond : 0);
    }
}

ProcessTimers::ProcessTimers(ThreadGroup& group)
    : group_(&group),
      real_(make_ref<RealTimer>(group)),
      cpu_{make_ref<CpuTimer>(group, CpuTimer::What::kVirtual),
           make_ref<CpuTimer>(group, CpuTimer::What::kProf),
           make_ref<CpuTimer>(group, CpuTimer::What::kLimit)} {}

ProcessTimers::~ProcessTimers() = default;

RefPtr<ProcessTimers> ProcessTimers::of(ThreadGroup& group) {
    auto fresh = make_ref<ProcessTimers>(group);  // dropped without the lock if it is not needed
    MutexLock lock(table().mu);
    RefPtr<ProcessTimers>& row = table().rows[&group];
    if (!row) {
        row = fresh;
    }
    RefPtr<ProcessTimers> result = row;
    lock.unlock();
    return result;
}

RefPtr<ProcessTimers> ProcessTimers::find(ThreadGroup& group) {
    MutexLock lock(table().mu);
    const auto row = table().rows.find(&group);
    return row != table().rows.end() ? row->second : nullptr;
}

Result<int32_t> ProcessTimers::create(int clock, TimerNotify notify, bool value_is_id,
                                      uint64_t limit) {
    MutexLock lock(mu_);
    if (posix_.size() >= limit) {
        return Errno(EAGAIN);
    }
    while (posix_.count(next_id_) != 0) {
        next_id_ = next_id_ == INT32_MAX ? 0 : next_id_ + 1;
    }
    const int32_t id = next_id_;
    next_id_ = next_id_ == INT32_MAX ? 0 : next_id_ + 1;
    if (value_is_id) {
        notify.value = static_cast<uint64_t>(id);
    }
    posix_.emplace(id, make_ref<PosixTimer>(group_, id, clock, std::move(notify)));
    return id;
}

Result<RefPtr<PosixTimer>> ProcessTimers::get(int32_t id) {
    MutexLock lock(mu_);
    const auto row = posix_.find(id);
    if (row == posix_.end()) {
        return Errno(EINVAL);
    }
    return row->second;
}

Status ProcessTimers::remove(int32_t id) {
    MutexLock lock(mu_);
    const auto row = posix_.find(id);
    if (row == posix_.end()) {
        return Errno(EINVAL);
    }
    const RefPtr<PosixTimer> doomed = std::move(row->second);
    posix_.erase(row);
    lock.unlock();
    doomed->disarm();
    return {};
}

void ProcessTimers::remove_all() {
    std::map<int32_t, RefPtr<PosixTimer>> doomed;
    {
        MutexLock lock(mu_);
        doomed.swap(posix_);
    }
    for (const auto& [id, timer] : doomed) {
        timer->disarm();
    }
}

void process_timers_exec(ThreadGroup& group) {
    if (const auto timers = ProcessTimers::find(group)) {
        timers->remove_all();
    }
}

void process_timers_exit(ThreadGroup& group) {
    RefPtr<ProcessTimers> timers;
    MutexLock lock(table().mu);
    const auto row = table().rows.find(&group);
    if (row == table().rows.end()) {
        return;
    }
    timers = std::move(row->second);
    table().rows.erase(row);
    lock.unlock();
    timers->real().disarm();
    for (const auto what :
         {CpuTimer::What::kVirtual, CpuTimer::What::kProf, CpuTimer::What::kLimit}) {
        timers->cpu(what).disarm();
    }
    timers->remove_all();
}

void process_timers_signal_taken(ThreadGroup& group, SignalInfo& info) {
    if (info.code != SI_TIMER) {
        return;
    }
    if (const auto timers = ProcessTimers::find(group)) {
        if (const auto timer = timers->get(info.timer.timer_id); timer.ok()) {
            timer.value()->signal_taken(info);
        }
    }
}

}  // namespace moat::kernel
