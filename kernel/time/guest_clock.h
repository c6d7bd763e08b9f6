#pragma once

#include <time.h>

#include <cstdint>

#include "kernel/base/result.h"

namespace moat::kernel {

/// Whether guests may sleep or set timers by this clock: the real-time, monotonic, boot-time and
/// TAI clocks, with their alarm variants (which here do not wake a machine).
bool is_timer_clock(int clock);
/// Now, by a clock that is_timer_clock() accepts, in nanoseconds.
int64_t clock_ns(int clock);
/// When CLOCK_MONOTONIC will show what `clock` then shows as `ns`, as far as can be foreseen: a
/// later step of the real-time clock is not followed. Saturates.
int64_t monotonic_deadline(int clock, int64_t ns);
/// tv_nsec within range and tv_sec not negative.
constexpr bool is_valid(const timespec& t) {
    return t.tv_sec >= 0 && t.tv_nsec >= 0 && t.tv_nsec < 1'000'000'000;
}
constexpr int64_t add_saturating(int64_t a, int64_t b) {
    int64_t sum = 0;
    if (__builtin_add_overflow(a, b, &sum)) {
        return a < 0 ? INT64_MIN : INT64_MAX;
    }
    return sum;
}

}  // namespace moat::kernel
