#include "cri/stats/cpu_rates.h"

namespace moat::cri {

namespace {

constexpr int64_t kLongestFirstWindowNs = 60'000'000'000;

}  // namespace

std::optional<uint64_t> CpuRates::note(const std::string& id, int64_t now_ns, uint64_t usage_ns,
                                       int64_t started_at_ns) {
    const Sample now{now_ns, usage_ns};
    const std::lock_guard lock(mu_);
    auto it = samples_.find(id);
    // A new object of an old name, a clock that was set back: begin again.
    if (it != samples_.end() &&
        (usage_ns < it->second.last.usage_ns || now_ns < it->second.last.at_ns)) {
        samples_.erase(it);
        it = samples_.end();
    }
    if (it == samples_.end()) {
        const bool young = started_at_ns > 0 && now_ns - started_at_ns < kLongestFirstWindowNs;
        it = samples_.insert({id, {young ? Sample{started_at_ns, 0} : now, now}}).first;
    } else if (now_ns - it->second.last.at_ns >= kWindowNs) {
        it->second = {it->second.last, now};
    }
    const Sample& before = it->second.before;
    if (now_ns - before.at_ns < kWindowNs || usage_ns < before.usage_ns) {
        return std::nullopt;
    }
    const double seconds = static_cast<double>(now_ns - before.at_ns) / 1e9;
    return static_cast<uint64_t>(static_cast<double>(usage_ns - before.usage_ns) / seconds);
}

void CpuRates::keep(const std::set<std::string>& ids) {
    const std::lock_guard lock(mu_);
    std::erase_if(samples_, [&](const auto& entry) { return !ids.contains(entry.first); });
}

}  // namespace moat::cri
