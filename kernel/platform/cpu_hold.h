#pragma once

#include <sys/types.h>

namespace moat::platform {

/// While it lives, `tid` runs only on the calling thread's CPU, and so does what it clones.
///
/// A fork is a dialogue of four: the caller's thread, its child, and the worker that answers both.
/// Left alone, the host starts the child on the idlest CPU, and from then on each answer wakes a
/// CPU out of its sleep: 25 to 50 us each in a virtual machine, against 3 us on one CPU.
/// `release()`d threads may go anywhere again; the host's load balancer spreads what turns out to
/// be busy. Best effort: an error leaves the thread where the host wants it.
class CpuHold {
  public:
    explicit CpuHold(pid_t tid);
    ~CpuHold() { release(tid_); }
    CpuHold(const CpuHold&) = delete;
    CpuHold& operator=(const CpuHold&) = delete;

    /// Lets a thread that was cloned meanwhile go.
    void release(pid_t tid) const;

  private:
    const pid_t tid_;
    bool held_ = false;
};

}  // namespace moat::platform
