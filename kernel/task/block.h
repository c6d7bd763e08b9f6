#pragma once

// How a system call waits without a thread that waits for it.
//
// A handler that cannot finish stores a continuation and returns kBlocked; its worker goes back to
// the listener. Whoever makes the awaited thing happen runs the continuation (WakeScope) and, when
// it gives a result, completes the call. A handler therefore never sleeps, and holds nothing across
// a wait but what its continuation owns (RefPtrs by value, never pointers into its stack).

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <vector>

#include "kernel/base/result.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

class Task;

enum class Wake : uint8_t {
    kReady,        ///< look again; may be in vain
    kTimeout,      ///< the deadline has passed: look a last time
    kInterrupted,  ///< a signal is deliverable: give the final result now
};

/// A point of CLOCK_MONOTONIC in nanoseconds, or never.
struct Deadline {
    int64_t ns = INT64_MAX;
    static constexpr Deadline never() { return {}; }
    static constexpr Deadline at(int64_t ns) { return {ns}; }
    /// `relative_ns` from now; saturates.
    static Deadline after(int64_t relative_ns);
    constexpr bool is_never() const { return ns == INT64_MAX; }
};

/// Returns kBlocked to go on waiting (allowed only for Wake::kReady), anything else to complete the
/// call. Runs with no lock held, on any thread of the sentry, never twice at once for one task.
using Continuation = std::function<Result<int64_t>(Task&, Wake)>;

struct WaitSource {
    WaitQueue* queue;  ///< kept alive by what the continuation owns
    PollMask mask;
};

/// Stores `continuation` and returns kBlocked (always): `return block(task, {...}, deadline, fn);`.
/// The continuation is run once with kReady right after the handler has returned, so an event
/// between the handler's own look and the registration is not lost.
Result<int64_t> block(Task& task, std::vector<WaitSource> sources, Deadline deadline,
                      Continuation continuation);

/// The common case: `attempt()` returns Result<int64_t>, EAGAIN meaning "not yet". Tries at once;
/// blocks on `source` if it has to and `may_block`. A timeout gives EAGAIN (SO_RCVTIMEO's answer),
/// an interruption `interrupted` (kRestartSys as a rule).
template <typename Attempt>
Result<int64_t> attempt_or_block(Task& task, WaitSource source, bool may_block, Deadline deadline,
                                 Errno interrupted, Attempt attempt) {
    Result<int64_t> first = attempt();
    if (first.ok() || !(first.error() == EAGAIN) || !may_block || source.queue == nullptr) {
        return first;
    }
    return block(
        task, {source}, deadline,
        [attempt = std::move(attempt), interrupted](Task&, Wake wake) mutable -> Result<int64_t> {
            Result<int64_t> again = attempt();
            if (again.ok() || !(again.error() == EAGAIN)) {
                return again;
            }
            switch (wake) {
                case Wake::kReady:
                    return kBlocked;
                case Wake::kTimeout:
                    return Errno(EAGAIN);
                case Wake::kInterrupted:
                    return interrupted;
            }
            return interrupted;
        });
}

}  // namespace moat::kernel
