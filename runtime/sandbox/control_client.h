#pragma once

#include <string>
#include <vector>

#include "kernel/base/scoped_fd.h"
#include "kernel/control/messages.h"
#include "runtime/error.h"

namespace moat::runtime {

/// A descriptor that goes with a request, under the name that the protocol gives it. Borrowed.
struct NamedFd {
    std::string name;
    int fd;
};

/// One connection to a sentry: one request at a time.
class ControlClient {
  public:
    /// Connects to `control.sock` in the open state directory. ECONNREFUSED or ENOENT: no sentry
    /// listens there.
    static Result<ControlClient> connect(int state_directory);

    /// Sends {"method": method, ...fields} and returns the answer. A refusal becomes an Error with
    /// the sentry's errno and words; ECONNRESET: the sentry is gone; ETIMEDOUT after `timeout_ms`
    /// (0: waits forever), after which the connection is of no more use.
    Result<control::Json> call(const std::string& method,
                               control::Json fields = control::Json::object(),
                               const std::vector<NamedFd>& fds = {}, int timeout_ms = 0);
    /// For streams: the next message of the sentry.
    Result<control::Json> receive();
    int fd() const { return socket_.get(); }

  private:
    explicit ControlClient(ScopedFd socket) : socket_(std::move(socket)) {}
    ScopedFd socket_;
};

/// A listening unix socket at `name` in the open directory, mode 0600. Paths longer than sun_path
/// are no matter: it is bound through /proc/self/fd.
Result<ScopedFd> listen_in(int directory, const std::string& name);

}  // namespace moat::runtime
