#pragma once

#include <sys/epoll.h>

#include <atomic>

#include <cstdint>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"

namespace moat::kernel {

/// EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLPRI: poll(2) has the same values.
using PollMask = uint32_t;

/// Someone to be told about events: a blocked task, an epoll item, the writer of a container's log.
class Waiter : public RefCounted {
  public:
    /// An event in `mask` may have happened. Called with no lock held, by whichever thread caused
    /// it, at the end of its work (see WakeScope). May be called late or in vain: look again.
    virtual void on_event(PollMask mask) = 0;
};

/// The waiters of one event source. Not a condition: it says "look again", never "it is so".
class WaitQueue {
  public:
    WaitQueue() = default;
    WaitQueue(const WaitQueue&) = delete;
    WaitQueue& operator=(const WaitQueue&) = delete;

    /// Registers `waiter` for events in `mask` (EPOLLERR and EPOLLHUP always included).
    void add(Waiter* waiter, PollMask mask);
    /// Removes every registration of `waiter`. It may still be told once by a call under way.
    void remove(Waiter* waiter);
    /// Queues every waiter interested in `mask` on the calling thread; they are told when its
    /// outermost WakeScope ends. May be called with locks held; cheap when nobody waits.
    void notify(PollMask mask);
    bool has_waiters() const { return count_.load(std::memory_order_relaxed) != 0; }

  private:
    struct Entry {
        RefPtr<Waiter> waiter;
        PollMask mask;
    };
    mutable Mutex<LockRank::kWaitQueue> mu_;
    std::vector<Entry> entries_ GUARDED_BY(mu_);
    std::atomic<size_t> count_{
        0};  // relaxed is enough: add() happens before the condition is looked at again
};

/// Every thread of the sentry that can call notify() does so inside a WakeScope: workers around a
/// system call, the timer, the host poller, the control server. Nested scopes do nothing.
class WakeScope {
  public:
    WakeScope();
    ~WakeScope();
    WakeScope(const WakeScope&) = delete;
    WakeScope& operator=(const WakeScope&) = delete;
    /// Tells now those queued so far. No lock may be held.
    static void flush();
    /// Queues one waiter by hand.
    static void post(RefPtr<Waiter> waiter, PollMask mask);
};

}  // namespace moat::kernel
