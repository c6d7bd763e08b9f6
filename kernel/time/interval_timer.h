#pragma once

#include <time.h>

#include <cstdint>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/time/timer_queue.h"

namespace moat::kernel {

/// A timer that goes off once or every period: what itimers and POSIX timers are made of. The timer
/// queue holds it while it is armed, and its call when it goes off.
class IntervalTimer : public RefCounted {
  public:
    /// Shorter periods go off at this pace, with the number of periods that have passed: what a
    /// guest asks of the timer thread stays bounded.
    static constexpr int64_t kShortestPeriodNs = 100'000;

    struct Setting {
        int64_t remaining_ns = 0;  ///< until it goes off; 0: disarmed
        int64_t interval_ns = 0;
    };

    /// `deadline_ns` of its clock; 0 disarms. Returns what was set before.
    Setting set(int64_t deadline_ns, int64_t interval_ns);
    /// The time by its clock: CLOCK_MONOTONIC, or the processor time of a process.
    virtual int64_t now_ns();
    Setting get();
    void disarm() { set(0, 0); }

  protected:
    /// Called on the timer thread, with no lock held, with the number of periods that have passed
    /// since it was last called (at least 1).
    virtual void on_expiry(uint64_t periods) = 0;
    /// When to look at the clock (a point of CLOCK_MONOTONIC) that showed `now_ns` and is waited
    /// for to show `next_ns`; it may be too early. `idle` is how often in a row it had stood still
    /// since the look before.
    virtual int64_t next_look_ns(int64_t now_ns, int64_t next_ns, uint32_t idle);

  private:
    void arm_locked(int64_t now_ns) REQUIRES(mu_);
    void expired(uint64_t generation);
    Setting get_locked(int64_t now_ns) const REQUIRES(mu_);

    Mutex<LockRank::kProcessTimers> mu_;
    int64_t next_ns_ GUARDED_BY(mu_) = 0;
    int64_t interval_ns_ GUARDED_BY(mu_) = 0;
    int64_t looked_ns_ GUARDED_BY(mu_) = 0;
    uint32_t idle_ GUARDED_BY(mu_) = 0;
    uint64_t generation_ GUARDED_BY(mu_) = 0;
    TimerId timer_ GUARDED_BY(mu_) = 0;
};

}  // namespace moat::kernel
