#pragma once

#include <time.h>

#include <cstdint>

namespace moat::gofer {

/// Decides whether to look for a message a little before sleeping for it.
///
/// A request and its answer are two wake-ups of a peer on another CPU. On our machines, virtual
/// ones, waking an idle CPU takes an interrupt, an exit and up to 30 us, while the work itself
/// takes 3. So either side polls for a moment, as long as that pays: where the peers share a CPU,
/// or it has other work, polls go unrewarded and are given up, but for a trial now and then. Not
/// thread-safe.
class Polling {
  public:
    /// Calls `attempt` until it returns true, for kWindowNs at most. Whether it did; false at once
    /// where polling has not paid lately.
    template <typename F>
    bool poll(F&& attempt) {
        if (credit_ == 0 && ++skipped_ < trial_after_) {
            return false;
        }
        skipped_ = 0;
        const int64_t end = now_ns() + kWindowNs;
        do {
            if (attempt()) {
                credit_ = credit_ < kMaxCredit ? credit_ + 1 : kMaxCredit;
                trial_after_ = kFirstTrial;
                return true;
            }
        } while (now_ns() < end);
        if (credit_ == 0) {
            trial_after_ = trial_after_ < kLastTrial ? trial_after_ * 2 : kLastTrial;
        }
        credit_ = credit_ > kMissCost ? credit_ - kMissCost : 0;
        return false;
    }

  private:
    static constexpr int64_t kWindowNs = 25'000;
    static constexpr uint32_t kMaxCredit = 16;
    static constexpr uint32_t kMissCost = 3;
    // Sleeps between trials: doubled after each that was in vain.
    static constexpr uint32_t kFirstTrial = 16;
    static constexpr uint32_t kLastTrial = 512;

    static int64_t now_ns() {
        timespec t;
        ::clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * int64_t{1'000'000'000} + t.tv_nsec;
    }

    uint32_t credit_ = 4;
    uint32_t skipped_ = 0;
    uint32_t trial_after_ = kFirstTrial;
};

}  // namespace moat::gofer
