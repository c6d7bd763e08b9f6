#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cri/base/error.h"

namespace moat::cri {

struct Node;

/// HTTP on an address of its own, for Prometheus and for probes:
///   /metrics  the exposition format; asks the sentries, in bounded time
///   /healthz  200 while moatd answers CRI calls on its own socket, else 503
///   /readyz   200 when a pod could be made as well (the condition NetworkReady), else 503
class MetricsServer {
  public:
    /// `address`: "127.0.0.1:9413", "[::1]:0". EINVAL; EADDRINUSE.
    static Result<std::unique_ptr<MetricsServer>> listen(const std::string& address, Node& node,
                                                         std::function<bool()> answers);
    ~MetricsServer();
    /// Where it listens: the port that the kernel chose, for port 0.
    const std::string& address() const { return address_; }

  private:
    struct Impl;
    MetricsServer(std::unique_ptr<Impl> impl, std::string address);
    std::unique_ptr<Impl> impl_;
    std::string address_;
};

}  // namespace moat::cri
