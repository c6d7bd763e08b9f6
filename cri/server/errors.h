#pragma once

#include <grpcpp/support/status.h>

#include "cri/base/error.h"

namespace moat::cri {

/// The one place where our errors become gRPC's.
::grpc::Status to_grpc(const Error& error);
inline ::grpc::Status to_grpc(const Status& status) {
    return status.ok() ? ::grpc::Status::OK : to_grpc(status.error());
}

}  // namespace moat::cri
