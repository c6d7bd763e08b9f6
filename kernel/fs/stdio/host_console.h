#pragma once

#include <string>

#include "kernel/base/mutex.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/fs/stdio/attachments.h"
#include "kernel/fs/stdio/cri_log.h"
#include "kernel/fs/tty/tty.h"
#include "kernel/net/host_poller.h"

namespace moat::kernel {

/// The far side of a guest's terminal when a person of the host sits there (`moat run -t`, kubectl
/// exec -it): copies between the Tty and a host descriptor, as a rule the slave of a host pty in
/// raw mode. Runs on the threads that cause the events; keeps itself alive until finish() has
/// written all, or the host has hung up. What is shown goes to a log and to those who are attached
/// too, or only there: then the terminal stays until finish(), and only the attached type.
class HostConsole final : public Waiter {
  public:
    /// Starts copying. `host` is made non-blocking. EPERM: cannot be polled. All but the terminal
    /// may be missing.
    static Result<RefPtr<HostConsole>> start(ScopedFd host, RefPtr<Tty> tty,
                                             RefPtr<CriLogSink> log = nullptr,
                                             RefPtr<Attachments> attached = nullptr);

    Tty& tty() const { return *tty_; }
    /// The process has ended: writes out what is left to show, then closes the host descriptor and
    /// hangs the terminal up.
    void finish();
    /// All is over, by finish() or since the host hung up.
    bool closed();

    void on_event(PollMask mask) override;
    HostConsole(ScopedFd host, RefPtr<Tty> tty, RefPtr<CriLogSink> log,
                RefPtr<Attachments> attached)
        : tty_(std::move(tty)),
          log_(std::move(log)),
          attached_(std::move(attached)),
          host_(std::move(host)) {}

  private:
    enum class Flow : bool { kMore, kEnd };
    Flow copy_in_locked() REQUIRES(mu_);
    Flow copy_out_locked() REQUIRES(mu_);

    const RefPtr<Tty> tty_;
    const RefPtr<CriLogSink> log_;
    const RefPtr<Attachments> attached_;
    Mutex<LockRank::kPipe> mu_;  // taken before the Tty's
    ScopedFd host_ GUARDED_BY(mu_);
    RefPtr<HostWatch> watch_ GUARDED_BY(mu_);
    std::string unsent_ GUARDED_BY(mu_);
    bool finishing_ GUARDED_BY(mu_) = false;
    bool closed_ GUARDED_BY(mu_) = false;
};

}  // namespace moat::kernel
