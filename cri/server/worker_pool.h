#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

namespace moat::cri {

/// Threads for work that may wait: each piece has one to itself, a new one if none is idle. An idle
/// one stays a while for the next.
class WorkerPool {
  public:
    explicit WorkerPool(size_t most_threads) : most_threads_(most_threads) {}
    /// Waits for what has been begun.
    ~WorkerPool();
    WorkerPool(const WorkerPool&) = delete;
    WorkerPool& operator=(const WorkerPool&) = delete;

    /// False: all threads are at work, or the system gives no more.
    bool run(std::function<void()> work);

  private:
    void work_on();

    const size_t most_threads_;
    std::mutex mu_;
    std::condition_variable wanted_;
    std::condition_variable ended_;
    std::deque<std::function<void()>> waiting_;  ///< as many idle threads are on their way to them
    size_t threads_ = 0;
    size_t idle_ = 0;
    bool ending_ = false;
};

}  // namespace moat::cri
