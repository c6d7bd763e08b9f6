#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "cri/base/error.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

/// The host side of a container's terminal: a pty whose slave the sentry bridges to the guest's,
/// and a thread that writes what comes out of the master to the container's log, as stdout.
///
/// Unlike other logs this one ends with moatd: the master cannot outlive the process that holds it.
class Terminal {
  public:
    static Result<std::shared_ptr<Terminal>> create();
    ~Terminal();

    int slave() const { return slave_.get(); }
    /// The sentry has its own copy now; ours would keep the terminal from ever ending.
    void close_slave() { slave_.reset(); }
    /// Begins to read. `log` may be invalid: the output is then dropped, but still read, so that
    /// the guest does not block on it.
    void start(ScopedFd log);
    void set_log(ScopedFd log);

  private:
    Terminal(ScopedFd master, ScopedFd slave, ScopedFd wake);
    void run();
    ScopedFd master_;
    ScopedFd slave_;
    ScopedFd wake_;  ///< eventfd; readable once the object is about to die
    std::mutex mu_;
    ScopedFd log_;  ///< guarded by mu_
    std::thread reader_;
};

/// `data` as lines of the CRI log format: "TIME stdout F text". A piece without newline at its end
/// is tagged P and continued by the next.
std::string cri_log_lines(std::string_view data, int64_t time_ns, const char* stream);

}  // namespace moat::cri
