#pragma once

#include <time.h>

#include <string>

#include "kernel/base/mutex.h"
#include "kernel/fs/file.h"
#include "kernel/time/timer_queue.h"

namespace moat::kernel {

/// The timer behind a timerfd. Apart from the description because the timer queue holds it too.
///
/// As on Linux, an interval timer that has expired is only set again when somebody reads it or asks
/// for its time: a period of a nanosecond costs no more than the reads.
class TimerFdCore final : public RefCounted {
  public:
    explicit TimerFdCore(int clock) : clock_(clock) {}

    /// Times are of the timer's clock; value 0 disarms. Returns what was set before, relative.
    itimerspec set(const itimerspec& wanted, bool absolute);
    itimerspec get();
    /// The expirations since the last call; 0: none.
    uint64_t take_ticks();
    bool has_ticks();
    void disarm();
    WaitQueue& queue() { return queue_; }

  private:
    void expired(uint64_t generation);
    void arm_locked() REQUIRES(mu_);
    void catch_up_locked(int64_t now) REQUIRES(mu_);
    itimerspec get_locked(int64_t now) const REQUIRES(mu_);

    const int clock_;
    Mutex<LockRank::kEventFile> mu_;
    int64_t next_ns_ GUARDED_BY(mu_) = 0;  // CLOCK_MONOTONIC; 0: disarmed
    int64_t interval_ns_ GUARDED_BY(mu_) = 0;
    uint64_t ticks_ GUARDED_BY(mu_) = 0;
    bool is_due_ GUARDED_BY(mu_) = false;  // has expired since it was last armed
    uint64_t generation_ GUARDED_BY(mu_) = 0;
    TimerId timer_ GUARDED_BY(mu_) = 0;
    WaitQueue queue_;
};

/// timerfd_create(2).
class TimerFile final : public File {
  public:
    TimerFile(int clock, uint32_t flags);
    ~TimerFile() override;

    TimerFdCore& core() { return *core_; }
    std::string anonymous_name() const override { return "anon_inode:[timerfd]"; }
    Result<size_t> read(Task& task, IoBuffer& destination) override;
    Result<struct stat> stat(Task& task) override;
    PollMask poll() override { return core_->has_ticks() ? EPOLLIN : 0u; }
    WaitQueue* wait_queue() override { return &core_->queue(); }

  private:
    const RefPtr<TimerFdCore> core_;
};

}  // namespace moat::kernel
