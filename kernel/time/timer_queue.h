#pragma once

#include <cstdint>
#include <functional>

namespace moat::kernel {

/// The sentry's one timer thread. Callbacks run on it, inside a WakeScope and with no lock held;
/// they must be short. Used by blocked calls, timerfd, itimers and POSIX timers.
using TimerId = uint64_t;  ///< never 0, never reused

/// Calls `callback` once CLOCK_MONOTONIC has reached `deadline_ns`.
TimerId start_timer(int64_t deadline_ns, std::function<void()> callback);
/// True: it will not run. False: it has run, is running now, or never existed.
bool cancel_timer(TimerId id);
/// Starts the thread; once, at boot.
void start_timer_thread();

}  // namespace moat::kernel
