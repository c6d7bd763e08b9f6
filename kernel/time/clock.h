#pragma once

#include <time.h>

#include <cstdint>

namespace moat::kernel {

/// CLOCK_MONOTONIC in nanoseconds.
int64_t monotonic_ns();
/// CLOCK_REALTIME in nanoseconds.
int64_t realtime_ns();
timespec realtime();
constexpr timespec to_timespec(int64_t ns) { return {ns / 1'000'000'000, ns % 1'000'000'000}; }
/// Saturates; negative fields are the caller's to refuse.
int64_t to_ns(const timespec& t);

}  // namespace moat::kernel
