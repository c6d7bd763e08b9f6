#include "cri/images/pull_metrics.h"

#include <spdlog/spdlog.h>

namespace moat::cri {

namespace {

constexpr std::chrono::seconds kBetweenLines{5};

double mebibytes(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

void PullMetrics::observe(std::chrono::milliseconds took) {
    const double seconds = static_cast<double>(took.count()) / 1000;
    size_t bucket = 0;
    while (bucket < kBounds.size() && seconds > kBounds[bucket]) {
        ++bucket;
    }
    ++buckets[bucket];
    milliseconds += static_cast<uint64_t>(took.count());
}

void PullProgress::expect(size_t layers, uint64_t bytes) {
    all_layers_ = layers;
    all_bytes_ = bytes;
}

void PullProgress::tell() {
    const std::unique_lock lock(mu_, std::try_to_lock);
    const auto now = Clock::now();
    if (!lock || all_layers_ == 0 || now - told_ < kBetweenLines) {
        return;
    }
    told_ = now;
    const uint64_t bytes = bytes_;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    spdlog::info("pull {}: {} of {} layers, {:.1f} of {:.1f} MiB, {:.1f} MiB/s", name_,
                 layers_.load(), all_layers_.load(), mebibytes(bytes), mebibytes(all_bytes_),
                 mebibytes(bytes) / seconds);
}

}  // namespace moat::cri
