#pragma once

#include <memory>
#include <string>

#include "cri/streaming/http_server.h"
#include "cri/streaming/tokens.h"

namespace moat::cri {
class ContainerManager;
class PodManager;
struct Settings;
}  // namespace moat::cri

namespace moat::cri::streaming {

/// Exec, Attach and PortForward: the RPC answers with a URL of this server, at which the client
/// then gets what it asked for. All it refers to outlives it.
class StreamingServer {
  public:
    StreamingServer(const Settings& settings, ContainerManager& containers, PodManager& pods);
    ~StreamingServer();

    Status start();
    /// Sessions end where they stand; processes of containers live on.
    void stop();

    // ENOENT, EBUSY (does not run), EINVAL, ENOSPC (too many URLs wait for their clients).
    Result<std::string> exec(ExecRequest request);
    Result<std::string> attach(AttachRequest request);
    Result<std::string> port_forward(PortForwardRequest request);

  private:
    Result<std::string> url(const char* endpoint, Request request);
    void serve(Client client, std::function<void()> finished);

    const Settings& settings_;
    ContainerManager& containers_;
    PodManager& pods_;
    Tokens tokens_;
    HttpServer http_;
};

}  // namespace moat::cri::streaming
