#pragma once

#include <linux/seccomp.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"

namespace moat::platform {

class HostThread;

/// One call of a host thread, as the host kernel reports it: numbers only, none of them in guest
/// memory.
struct Notification {
    uint64_t id = 0;
    pid_t tid = 0;  ///< in the sentry's pid namespace; from the host kernel, so true
    uint64_t number = 0;
    uint64_t ip = 0;
    uint64_t arguments[6] = {};
};

/// A seccomp listener: the source of notifications of one host thread, or of a family of threads
/// that inherited its filter by fork. Exactly one thread of the sentry receives from it at a time:
/// with several, each notification wakes all of them (measured: 9 to 31 us instead of 4).
class Listener final : public RefCounted {
  public:
    explicit Listener(ScopedFd fd) : fd_(std::move(fd)) {}

    /// Waits for the next notification, those set aside first. ESRCH: no thread uses the filter any
    /// more.
    Result<Notification> receive();
    /// Waits for one that is not set aside yet, for as long as `timeout_ms`: ETIMEDOUT. For whoever
    /// waits for one thread of several.
    Result<Notification> receive_fresh(int timeout_ms);
    /// Keeps `notification` for a later receive().
    void set_aside(const Notification& notification) { aside_.push_back(notification); }

    /// The call returns `value` (a negative errno is one). False: the call has gone.
    bool reply(uint64_t id, int64_t value);
    /// The host kernel executes the call.
    bool let_run(uint64_t id);
    /// Puts `host_fd` into the caller's host descriptor table at `number`, close-on-exec.
    Status lend(uint64_t id, int host_fd, int number);
    /// As lend(), and the call returns `number`: one hand-over less.
    Status lend_and_reply(uint64_t id, int host_fd, int number);

    void add(HostThread* thread);
    void remove(HostThread* thread);
    /// The thread with that host tid, or null.
    RefPtr<HostThread> find(pid_t tid) const;
    size_t thread_count() const;
    int fd() const { return fd_.get(); }

    /// True for the first who asks: he gives it a receiver. Again after give_up_receiver().
    bool claim_receiver() { return !has_receiver_.exchange(true); }
    void give_up_receiver() { has_receiver_.store(false); }

  private:
    Status add_fd(uint64_t id, int host_fd, int number, uint32_t flags);

    const ScopedFd fd_;
    std::deque<Notification> aside_;  // the receiver's
    std::atomic<bool> has_receiver_{false};
    mutable Mutex<LockRank::kListener> mu_;
    std::vector<HostThread*> threads_ GUARDED_BY(mu_);
};

}  // namespace moat::platform
