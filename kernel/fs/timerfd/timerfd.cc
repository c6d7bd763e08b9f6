#include "kernel/fs/timerfd/timerfd.h"

#include <fcntl.h>

#include <algorithm>

#include "kernel/fs/pipe/anonymous.h"
#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

void TimerFdCore::arm_locked() {
    is_due_ = false;
    timer_ = start_timer(next_ns_,
                         [self = RefPtr<TimerFdCore>(this), g = generation_] { self->expired(g); });
}

void TimerFdCore::expired(uint64_t generation) {
    MutexLock lock(mu_);
    if (generation != generation_) {
        return;  // set anew meanwhile
    }
    is_due_ = true;
    timer_ = 0;
    ticks_++;
    lock.unlock();
    queue_.notify(EPOLLIN);
}

/// Sets an expired interval timer again, counting the periods that have gone by unseen.
void TimerFdCore::catch_up_locked(int64_t now) {
    if (!is_due_ || interval_ns_ == 0) {
        return;
    }
    const int64_t missed = now > next_ns_ ? (now - next_ns_) / interval_ns_ : 0;
    ticks_ += static_cast<uint64_t>(missed);
    next_ns_ = add_saturating(next_ns_, (missed + 1) * interval_ns_);
    arm_locked();
}

itimerspec TimerFdCore::get_locked(int64_t now) const {
    itimerspec current{};
    current.it_interval = to_timespec(interval_ns_);
    if (next_ns_ != 0 && !is_due_) {
        // Due but not yet run: Linux shows at least a nanosecond as long as it is armed.
        current.it_value = to_timespec(std::max<int64_t>(next_ns_ - now, 1));
    }
    return current;
}

itimerspec TimerFdCore::get() {
    MutexLock lock(mu_);
    const int64_t now = monotonic_ns();
    catch_up_locked(now);
    return get_locked(now);
}

itimerspec TimerFdCore::set(const itimerspec& wanted, bool absolute) {
    MutexLock lock(mu_);
    const int64_t now = monotonic_ns();
    catch_up_locked(now);
    const itimerspec before = get_locked(now);
    const TimerId old = std::exchange(timer_, 0);
    generation_++;
    ticks_ = 0;
    is_due_ = false;
    interval_ns_ = to_ns(wanted.it_interval);
    const int64_t value = to_ns(wanted.it_value);
    if (value == 0) {
        next_ns_ = 0;
    } else {
        next_ns_ = absolute ? monotonic_deadline(clock_, value) : add_saturating(now, value);
        next_ns_ = std::max<int64_t>(next_ns_, 1);
        arm_locked();
    }
    lock.unlock();
    if (old != 0) {
        cancel_timer(old);
    }
    return before;
}

void TimerFdCore::disarm() {
    MutexLock lock(mu_);
    const TimerId old = std::exchange(timer_, 0);
    generation_++;
    next_ns_ = 0;
    lock.unlock();
    if (old != 0) {
        cancel_timer(old);
    }
}

uint64_t TimerFdCore::take_ticks() {
    MutexLock lock(mu_);
    if (ticks_ == 0) {
        return 0;
    }
    catch_up_locked(monotonic_ns());
    return std::exchange(ticks_, 0);
}

bool TimerFdCore::has_ticks() {
    MutexLock lock(mu_);
    return ticks_ != 0;
}

TimerFile::TimerFile(int clock, uint32_t flags)
    : File(O_RDWR | flags), core_(make_ref<TimerFdCore>(clock)) {}

TimerFile::~TimerFile() { core_->disarm(); }

Result<size_t> TimerFile::read(Task&, IoBuffer& destination) {
    if (destination.remaining() < sizeof(uint64_t)) {
        return Errno(EINVAL);
    }
    const uint64_t ticks = core_->take_ticks();
    if (ticks == 0) {
        return Errno(EAGAIN);
    }
    if (TRY(destination.put(&ticks, sizeof ticks)) != sizeof ticks) {
        return Errno(EFAULT);
    }
    return sizeof ticks;
}

Result<struct stat> TimerFile::stat(Task&) { return anonymous_stat(1, 0600, 0, 0); }

}  // namespace moat::kernel
