#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "cri/base/files.h"

namespace moat::cri {

/// Removes directory trees behind its caller's back: a layer has thousands of files, and a journal
/// that is busy makes each of them slow. A tree is renamed into `directory` under a lock of its
/// own, so its name is free at once, and what a killed moatd leaves is removed by the next one as
/// everything in that directory is.
class Trash {
  public:
    explicit Trash(std::string directory);
    /// Waits until everything is gone.
    ~Trash();
    Trash(const Trash&) = delete;
    Trash& operator=(const Trash&) = delete;

    /// Nothing at `path` is a success.
    Status take(const std::string& path);
    /// Waits until everything that was taken is gone, for so long at most. False: it is not.
    bool wait_empty(std::chrono::seconds longest);

  private:
    struct Item {
        std::string path;
        FileLock lock;
    };
    void work();

    const std::string directory_;
    std::mutex mu_;
    std::condition_variable changed_;
    std::condition_variable removed_;
    std::deque<Item> items_;  ///< guarded by mu_
    bool removing_ = false;   ///< an item that is not in items_ any more; guarded by mu_
    bool ending_ = false;     ///< guarded by mu_
    std::thread worker_;      ///< started by the first item; guarded by mu_ until ending_
};

}  // namespace moat::cri
