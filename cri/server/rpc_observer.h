#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <optional>
#include <string>

#include "cri/base/log.h"

namespace moat::cri {

/// One call, from its request to its status, on the thread that carries it out: one log line (info
/// for what changes something, debug for what reads), with method, request id, the ids that the
/// request names, duration and code; and the metrics. Fields rpc and request are on every line that
/// the thread logs meanwhile.
class RpcObserver {
  public:
    /// `method`: "Version".
    explicit RpcObserver(const std::string& method);
    ~RpcObserver();
    RpcObserver(const RpcObserver&) = delete;
    RpcObserver& operator=(const RpcObserver&) = delete;

    void received(const google::protobuf::Message& request);
    void finish(const ::grpc::Status& status);

  private:
    void log(const ::grpc::Status& status, const char* code, double seconds) const;

    const std::string& method_;
    const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
    std::string pod_;
    std::string container_;
    const LogScope rpc_;
    const LogScope request_;
};

}  // namespace moat::cri
