#include "kernel/time/interval_timer.h"

#include <algorithm>
#include <utility>

#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

int64_t IntervalTimer::now_ns() { return monotonic_ns(); }

int64_t IntervalTimer::next_look_ns(int64_t, int64_t next_ns, uint32_t) { return next_ns; }

void IntervalTimer::arm_locked(int64_t now_ns) {
    idle_ = now_ns == looked_ns_ ? idle_ + 1 : 0;
    looked_ns_ = now_ns;
    timer_ =
        start_timer(next_look_ns(now_ns, next_ns_, idle_),
                    [self = RefPtr<IntervalTimer>(this), g = generation_] { self->expired(g); });
}

void IntervalTimer::expired(uint64_t generation) {
    const int64_t now = now_ns();  // before the lock: a process's clock has locks of its own
    MutexLock lock(mu_);
    if (generation != generation_) {
        return;  // set anew while this was on its way
    }
    timer_ = 0;
    if (now < next_ns_) {
        arm_locked(now);
        return;
    }
    uint64_t periods = 1;
    if (interval_ns_ == 0) {
        next_ns_ = 0;
    } else {
        const int64_t missed = std::max<int64_t>(now - next_ns_, 0) / interval_ns_;
        periods += static_cast<uint64_t>(missed);
        next_ns_ = add_saturating(next_ns_, (missed + 1) * interval_ns_);
        if (next_ns_ < now + kShortestPeriodNs) {
            const int64_t skipped = (now + kShortestPeriodNs - next_ns_) / interval_ns_;
            next_ns_ += skipped * interval_ns_;
            periods += static_cast<uint64_t>(skipped);
        }
        arm_locked(now);
    }
    lock.unlock();
    on_expiry(periods);
}

IntervalTimer::Setting IntervalTimer::get_locked(int64_t now_ns) const {
    Setting setting;
    setting.interval_ns = interval_ns_;
    if (next_ns_ != 0) {
        setting.remaining_ns = std::max<int64_t>(next_ns_ - now_ns, 1);
    }
    return setting;
}

IntervalTimer::Setting IntervalTimer::get() {
    const int64_t now = now_ns();
    MutexLock lock(mu_);
    return get_locked(now);
}

IntervalTimer::Setting IntervalTimer::set(int64_t deadline_ns, int64_t interval_ns) {
    const int64_t now = now_ns();
    MutexLock lock(mu_);
    const Setting before = get_locked(now);
    const TimerId old = std::exchange(timer_, 0);
    generation_++;
    next_ns_ = deadline_ns;
    interval_ns_ = deadline_ns != 0 ? interval_ns : 0;
    if (deadline_ns != 0) {
        looked_ns_ = -1;
        arm_locked(now);
    }
    lock.unlock();
    if (old != 0) {
        cancel_timer(old);
    }
    return before;
}

}  // namespace moat::kernel
