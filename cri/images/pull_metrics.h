#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace moat::cri {

/// Of all pulls of this process; read at any time, without a lock.
struct PullMetrics {
    std::atomic<int64_t> running = 0;
    std::atomic<uint64_t> succeeded = 0;
    std::atomic<uint64_t> failed = 0;
    std::atomic<uint64_t> cancelled = 0;         ///< the client had gone
    std::atomic<uint64_t> bytes_downloaded = 0;  ///< of blobs, over the network
    std::atomic<uint64_t> bytes_resumed = 0;  ///< not downloaded: a broken download had left them
    std::atomic<uint64_t> bytes_unpacked = 0;
    std::atomic<uint64_t> layers_downloaded = 0;
    std::atomic<uint64_t> layers_shared = 0;  ///< already there, or another pull was at it
    std::atomic<uint64_t> retries = 0;        ///< requests made again after an error

    /// How long successful pulls took: buckets[i] counts those of at most kBounds[i] seconds and
    /// more than the bound before; the last one has no bound.
    static constexpr std::array<double, 9> kBounds = {0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300};
    std::array<std::atomic<uint64_t>, kBounds.size() + 1> buckets = {};
    std::atomic<uint64_t> milliseconds = 0;  ///< their sum

    void observe(std::chrono::milliseconds took);
};

/// One pull's way, told in the log every few seconds.
class PullProgress {
  public:
    explicit PullProgress(std::string name) : name_(std::move(name)) {}
    void expect(size_t layers, uint64_t bytes);
    void downloaded(uint64_t bytes) { bytes_ += bytes; }
    /// Of a layer that need not be downloaded any more.
    void skipped(uint64_t bytes) { bytes_ += bytes; }
    void layer_done() { ++layers_; }
    /// Writes a line if the last one is long enough ago. Any thread, any time.
    void tell();

  private:
    using Clock = std::chrono::steady_clock;
    const std::string name_;
    const Clock::time_point start_ = Clock::now();
    std::atomic<size_t> all_layers_ = 0;
    std::atomic<uint64_t> all_bytes_ = 0;
    std::atomic<size_t> layers_ = 0;
    std::atomic<uint64_t> bytes_ = 0;
    std::mutex mu_;
    Clock::time_point told_ = Clock::now();  ///< guarded by mu_
};

}  // namespace moat::cri
