#include "cri/server/errors.h"

namespace moat::cri {

::grpc::Status to_grpc(const Error& error) {
    const auto code = [&] {
        switch (error.code()) {
            case ENOENT:
                return ::grpc::StatusCode::NOT_FOUND;
            case EEXIST:
                return ::grpc::StatusCode::ALREADY_EXISTS;
            case EINVAL:
                return ::grpc::StatusCode::INVALID_ARGUMENT;
            case EBUSY:
                return ::grpc::StatusCode::FAILED_PRECONDITION;
            case EOPNOTSUPP:
                return ::grpc::StatusCode::UNIMPLEMENTED;
            case ETIMEDOUT:
                return ::grpc::StatusCode::DEADLINE_EXCEEDED;
            case ECANCELED:
                return ::grpc::StatusCode::CANCELLED;
            case EACCES:
                return ::grpc::StatusCode::PERMISSION_DENIED;
            case ENOSPC:
            case EDQUOT:
                return ::grpc::StatusCode::RESOURCE_EXHAUSTED;
            case EBADMSG:
                return ::grpc::StatusCode::DATA_LOSS;
            default:
                return ::grpc::StatusCode::INTERNAL;
        }
    }();
    return {code, error.message()};
}

}  // namespace moat::cri
