#pragma once

#include <cstdint>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

/// A host descriptor that the poller thread watches: its queue is told, edge by edge, of what the
/// host's epoll says. Owned by whoever owns the descriptor, who calls stop() before closing it.
class HostWatch final : public RefCounted {
  public:
    /// `fd` is borrowed. EPERM: of a kind that cannot be polled; ENOSPC, ENOMEM.
    static Result<RefPtr<HostWatch>> start(int fd);
    /// No event is told after this has returned, but for one under way.
    void stop();
    WaitQueue& queue() { return queue_; }
    ~HostWatch() override;

    explicit HostWatch(int fd) : fd_(fd) {}

  private:
    const int fd_;
    uint64_t id_ = 0;  // 0: not watched
    WaitQueue queue_;
};

/// Makes the epoll instance and starts the one thread. Once, at boot, before any HostWatch.
Status start_host_poller();
/// What is ready on the host descriptor `fd` now (poll(2) with no time).
PollMask poll_host(int fd);

}  // namespace moat::kernel
