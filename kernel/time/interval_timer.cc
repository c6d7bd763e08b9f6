#include "kernel/time/interval_timer.h"

#include <algorithm>
#include <utility>

#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

void IntervalTimer::arm_locked() {
    timer_ = start_timer(
        next_ns_, [self = RefPtr<IntervalTimer>(this), g = generation_] { self->expired(g); });
}

void IntervalTimer::expired(uint64_t generation) {
    MutexLock lock(mu_);
    if (generation != generation_) {
        return;  // set anew while this was on its way
    }
    timer_ = 0;
    uint64_t periods = 1;
    if (interval_ns_ == 0) {
        next_ns_ = 0;
    } else {
        const int64_t now = monotonic_ns();
        const int64_t missed = std::max<int64_t>(now - next_ns_, 0) / interval_ns_;
        periods += static_cast<uint64_t>(missed);
        next_ns_ = add_saturating(next_ns_, (missed + 1) * interval_ns_);
        if (next_ns_ < now + kShortestPeriodNs) {
            const int64_t skipped = (now + kShortestPeriodNs - next_ns_) / interval_ns_;
            next_ns_ += skipped * interval_ns_;
            periods += static_cast<uint64_t>(skipped);
        }
        arm_locked();
    }
    lock.unlock();
    on_expiry(periods);
}

IntervalTimer::Setting IntervalTimer::get_locked() const {
    Setting setting;
    setting.interval_ns = interval_ns_;
    if (next_ns_ != 0) {
        setting.remaining_ns = std::max<int64_t>(next_ns_ - monotonic_ns(), 1);
    }
    return setting;
}

IntervalTimer::Setting IntervalTimer::get() {
    MutexLock lock(mu_);
    return get_locked();
}

IntervalTimer::Setting IntervalTimer::set(int64_t deadline_ns, int64_t interval_ns) {
    MutexLock lock(mu_);
    const Setting before = get_locked();
    const TimerId old = std::exchange(timer_, 0);
    generation_++;
    next_ns_ = deadline_ns;
    interval_ns_ = deadline_ns != 0 ? interval_ns : 0;
    if (deadline_ns != 0) {
        arm_locked();
    }
    lock.unlock();
    if (old != 0) {
        cancel_timer(old);
    }
    return before;
}

}  // namespace moat::kernel
