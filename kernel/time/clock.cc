#include "kernel/time/clock.h"

namespace moat::kernel {

timespec realtime() {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return now;
}

int64_t realtime_ns() { return to_ns(realtime()); }

int64_t monotonic_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return to_ns(now);
}

int64_t to_ns(const timespec& t) {
    int64_t ns = 0;
    if (__builtin_mul_overflow(t.tv_sec, int64_t{1'000'000'000}, &ns) ||
        __builtin_add_overflow(ns, t.tv_nsec, &ns)) {
        return t.tv_sec < 0 ? INT64_MIN : INT64_MAX;
    }
    return ns;
}

}  // namespace moat::kernel
