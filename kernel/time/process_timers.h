#pragma once

#include <cstdint>
#include <map>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/task/signal.h"
#include "kernel/task/thread_group.h"
#include "kernel/time/interval_timer.h"

namespace moat::kernel {

class Task;

/// How a POSIX timer tells (sigevent(7)).
struct TimerNotify {
    enum class How : uint8_t { kNothing, kProcess, kThread };
    How how = How::kProcess;
    int signal = SIGALRM;
    uint64_t value = 0;
    RefPtr<Task> thread;  ///< kThread
};

/// One POSIX timer (timer_create(2)).
class PosixTimer final : public IntervalTimer {
  public:
    PosixTimer(RefPtr<ThreadGroup> group, int32_t id, int clock, TimerNotify notify);
    ~PosixTimer() override;

    int clock() const { return clock_; }
    int32_t id() const { return id_; }
    /// timer_settime(2): overruns start over.
    void reset_overrun();
    /// timer_getoverrun(2).
    int32_t overrun();
    /// Its signal is being delivered: fills in the overruns so far.
    void signal_taken(SignalInfo& info);

  private:
    void on_expiry(uint64_t periods) override;
    bool signal_is_pending();

    const RefPtr<ThreadGroup> group_;
    const int32_t id_;
    const int clock_;
    const TimerNotify notify_;
    Mutex<LockRank::kProcessTimers> mu_;
    uint64_t overrun_ GUARDED_BY(mu_) = 0;  // since the signal that is or was last pending
};

/// ITIMER_REAL (setitimer(2)).
class RealTimer final : public IntervalTimer {
  public:
    explicit RealTimer(ThreadGroup& group) : group_(&group) {}
    ~RealTimer() override;

  private:
    void on_expiry(uint64_t periods) override;
    const RefPtr<ThreadGroup> group_;
};

/// The timers of a process: ITIMER_REAL and POSIX timers. Made when first asked for; kept in a
/// table by thread group until process_timers_exit().
class ProcessTimers final : public RefCounted {
  public:
    static RefPtr<ProcessTimers> of(ThreadGroup& group);
    /// Null: the process has never had any.
    static RefPtr<ProcessTimers> find(ThreadGroup& group);

    IntervalTimer& real() { return *real_; }

    /// EAGAIN: `limit` timers exist.
    Result<int32_t> create(int clock, TimerNotify notify, bool value_is_id, uint64_t limit);
    /// EINVAL.
    Result<RefPtr<PosixTimer>> get(int32_t id);
    Status remove(int32_t id);
    void remove_all();

    explicit ProcessTimers(ThreadGroup& group);
    ~ProcessTimers() override;

  private:
    const RefPtr<ThreadGroup> group_;
    const RefPtr<RealTimer> real_;
    Mutex<LockRank::kProcessTimers> mu_;
    std::map<int32_t, RefPtr<PosixTimer>> posix_ GUARDED_BY(mu_);
    int32_t next_id_ GUARDED_BY(mu_) = 0;
};

// Called by the life of processes, with no lock held.
/// execve(2): POSIX timers are deleted, the interval timer runs on.
void process_timers_exec(ThreadGroup& group);
/// The last thread has ended. Without this call the group stays in memory.
void process_timers_exit(ThreadGroup& group);
/// A signal with code SI_TIMER was taken off a queue for delivery: fills in si_overrun.
void process_timers_signal_taken(ThreadGroup& group, SignalInfo& info);

}  // namespace moat::kernel
