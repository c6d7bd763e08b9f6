#pragma once

#include <string>

#include "runtime/sentry_runtime.h"

namespace moat::runtime::cli {

/// A process of ours that outlives us: when a foreground command is killed in a way that it cannot
/// answer (SIGKILL, a crash), its container goes with it, whatever state it was in.
class Watcher {
  public:
    struct Orders {
        Options options;
        std::string id;
        bool keep = false;    ///< kill the container, but do not delete it
        std::string scratch;  ///< a directory to remove as well; may be empty
    };
    /// Call it while there is one thread only.
    static Result<Watcher> start(const Orders& orders);
    Watcher(Watcher&& other) noexcept : pipe_(std::move(other.pipe_)), pid_(other.pid_) {
        other.pid_ = 0;
    }
    /// Dismisses it: what had to be cleaned up, we have.
    ~Watcher();

  private:
    Watcher(ScopedFd pipe, int pid) : pipe_(std::move(pipe)), pid_(pid) {}

    ScopedFd pipe_;  ///< its end of file, without a word before it, is our death
    int pid_;
};

}  // namespace moat::runtime::cli
