#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>

namespace moat::cri {

/// Sees every call of both services from its request to its status: one log line each (info for
/// what changes something, debug for what reads), with method, request id, the ids that the request
/// names, duration and code; and the metrics. Fields rpc and request are on every line that is
/// logged meanwhile.
std::unique_ptr<::grpc::experimental::ServerInterceptorFactoryInterface> make_rpc_observer();

}  // namespace moat::cri
