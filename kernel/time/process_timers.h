#pragma once

#include <array>
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

    /// CLOCK_PROCESS_CPUTIME_ID stands for its own process's processor time.
    int clock() const { return clock_; }
    int64_t now_ns() override;
    int32_t id() const { return id_; }
    /// timer_settime(2): overruns start over.
    void reset_overrun();
    /// timer_getoverrun(2).
    int32_t overrun();
    /// Its signal is being delivered: fills in the overruns so far.
    void signal_taken(SignalInfo& info);

  private:
    void on_expiry(uint64_t periods) override;
    int64_t next_look_ns(int64_t now_ns, int64_t next_ns, uint32_t idle) override;
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

/// ITIMER_VIRTUAL and ITIMER_PROF, which send their signal, and RLIMIT_CPU, which sends SIGXCPU or
/// SIGKILL as the limits say. The host's account of a process is not split by mode: all of it
/// counts as the user's.
class CpuTimer final : public IntervalTimer {
  public:
    enum class What : uint8_t { kVirtual, kProf, kLimit };
    CpuTimer(ThreadGroup& group, What what) : group_(&group), what_(what) {}
    ~CpuTimer() override;
    int64_t now_ns() override;

  private:
    void on_expiry(uint64_t periods) override;
    int64_t next_look_ns(int64_t now_ns, int64_t next_ns, uint32_t idle) override;
    const RefPtr<ThreadGroup> group_;
    const What what_;
};

/// The timers of a process: interval timers, POSIX timers, RLIMIT_CPU. Made when first asked for;
/// kept in a table by thread group until process_timers_exit().
class ProcessTimers final : public RefCounted {
  public:
    static RefPtr<ProcessTimers> of(ThreadGroup& group);
    /// Null: the process has never had any.
    static RefPtr<ProcessTimers> find(ThreadGroup& group);

    IntervalTimer& real() { return *real_; }
    IntervalTimer& cpu(CpuTimer::What what) { return *cpu_[static_cast<size_t>(what)]; }

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
    const std::array<RefPtr<CpuTimer>, 3> cpu_;
    Mutex<LockRank::kProcessTimers> mu_;
    std::map<int32_t, RefPtr<PosixTimer>> posix_ GUARDED_BY(mu_);
    int32_t next_id_ GUARDED_BY(mu_) = 0;
};

// Called by the life of processes, with no lock held.
/// RLIMIT_CPU was set or inherited.
void process_timers_cpu_limit(ThreadGroup& group);
/// execve(2): POSIX timers are deleted, the interval timer runs on.
void process_timers_exec(ThreadGroup& group);
/// The last thread has ended. Without this call the group stays in memory.
void process_timers_exit(ThreadGroup& group);
/// A signal with code SI_TIMER was taken off a queue for delivery: fills in si_overrun.
void process_timers_signal_taken(ThreadGroup& group, SignalInfo& info);

}  // namespace moat::kernel
