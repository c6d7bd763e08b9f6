#include "cri/server/errors.h"

namespace moat::cri {

namespace {

/// A message travels in a header of HTTP/2, percent-encoded, of which clients take 8 KiB in all;
/// a longer one reaches them as RESOURCE_EXHAUSTED instead of what we said.
constexpr size_t kLongestMessage = 2000;

std::string bounded(const std::string& message) {
    if (message.size() <= kLongestMessage) {
        return message;
    }
    std::string text = message.substr(0, kLongestMessage);
    while ((static_cast<unsigned char>(text.back()) & 0xc0) == 0x80) {
        text.pop_back();
    }
    if (static_cast<unsigned char>(text.back()) >= 0xc0) {
        text.pop_back();
    }
    return text + "... (" + std::to_string(message.size()) + " bytes in all)";
}

}  // namespace

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
    return {code, bounded(error.message())};
}

}  // namespace moat::cri
