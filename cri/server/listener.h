#pragma once

#include <grpcpp/server.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <thread>

#include "cri/base/error.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

/// The CRI's unix socket: accepts clients and hands them to the server. gRPC's own listener (1.51)
/// accepts nobody any more once accept(2) has failed for want of descriptors, and would let clients
/// have all of them.
class Listener {
  public:
    /// Binds and listens; only the owner may connect. A socket that nobody listens on, which a
    /// killed moatd has left, is replaced. EBUSY: somebody listens on it.
    static Result<std::unique_ptr<Listener>> open(const std::string& path);
    ~Listener();

    /// Accepts from here on, in a thread of its own; `server` outlives it or stop() is called
    /// first.
    void serve(::grpc::Server& server);
    /// Closes the socket and removes it, unless it is another's by now. Clients stay connected.
    void stop();

  private:
    Listener(std::string path, ino_t inode, ScopedFd socket, ScopedFd ends);
    void accept_all(::grpc::Server& server);
    /// Returns how long to wait before the next, in milliseconds.
    int admit(::grpc::Server& server);

    const std::string path_;
    const ino_t inode_;
    ScopedFd socket_;
    const ScopedFd ends_;  ///< an eventfd
    std::thread thread_;
};

}  // namespace moat::cri
