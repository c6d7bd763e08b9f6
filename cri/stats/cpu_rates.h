#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>

namespace moat::cri {

/// CPU time per second out of the figures that clients happen to ask for: there is no thread that
/// samples. A rate is taken over the time since the last figure that is at least kWindow old, so
/// that two clients who ask at nearly the same moment do not spoil each other's window.
class CpuRates {
  public:
    static constexpr int64_t kWindowNs = 500'000'000;

    /// Notes that `id` had used `usage_ns` at `now_ns`; returns nanoseconds per second since an
    /// earlier figure, or since `started_at_ns` (when it had used nothing) if that is the first and
    /// less than a minute ago. Nothing while neither is kWindow ago, or when the use went back.
    std::optional<uint64_t> note(const std::string& id, int64_t now_ns, uint64_t usage_ns,
                                 int64_t started_at_ns);
    /// Forgets all others.
    void keep(const std::set<std::string>& ids);

  private:
    struct Sample {
        int64_t at_ns = 0;
        uint64_t usage_ns = 0;
    };
    struct Samples {
        Sample before;  ///< what rates are taken against
        Sample last;    ///< becomes `before` once it is old enough
    };
    std::mutex mu_;
    std::map<std::string, Samples> samples_;  ///< guarded by mu_
};

}  // namespace moat::cri
