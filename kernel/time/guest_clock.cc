#include "kernel/time/guest_clock.h"

#include "kernel/time/clock.h"

namespace moat::kernel {

bool is_timer_clock(int clock) {
    switch (clock) {
        case CLOCK_REALTIME:
        case CLOCK_MONOTONIC:
        case CLOCK_BOOTTIME:
        case CLOCK_REALTIME_ALARM:
        case CLOCK_BOOTTIME_ALARM:
        case CLOCK_TAI:
            return true;
        default:
            return false;
    }
}

int64_t clock_ns(int clock) {
    if (clock == CLOCK_REALTIME_ALARM) {
        clock = CLOCK_REALTIME;
    } else if (clock == CLOCK_BOOTTIME_ALARM) {
        clock = CLOCK_BOOTTIME;
    }
    timespec now{};
    ::clock_gettime(clock, &now);
    return to_ns(now);
}

int64_t monotonic_deadline(int clock, int64_t ns) {
    if (clock == CLOCK_MONOTONIC) {
        return ns;
    }
    return add_saturating(monotonic_ns(), add_saturating(ns, -clock_ns(clock)));
}

}  // namespace moat::kernel
