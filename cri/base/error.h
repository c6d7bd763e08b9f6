#pragma once

#include <cerrno>
#include <string>
#include <utility>

#include "runtime/error.h"

namespace moat::cri {

using runtime::Error;
using runtime::Result;
using runtime::Status;

/// The codes with a meaning for a CRI client; server/errors.cc is the one place that turns them
/// into gRPC codes. Everything else a layer below reports reaches the client as INTERNAL.
inline Error not_found(std::string what) { return Error(ENOENT, std::move(what)); }
inline Error already_exists(std::string what) { return Error(EEXIST, std::move(what)); }
inline Error invalid_argument(std::string what) { return Error(EINVAL, std::move(what)); }
/// The object is not in a state that allows the call.
inline Error wrong_state(std::string what) { return Error(EBUSY, std::move(what)); }
inline Error not_supported(std::string what) { return Error(EOPNOTSUPP, std::move(what)); }
inline Error timed_out(std::string what) { return Error(ETIMEDOUT, std::move(what)); }
inline Error internal_error(std::string what) { return Error(EIO, std::move(what)); }

/// An error from below whose errno must not be taken for the CRI's: a missing CNI plugin is ENOENT,
/// but a client that reads NOT_FOUND believes that its pod is gone. Only what cannot be mistaken
/// keeps its code.
inline Error host_error(const Error& error, const std::string& step) {
    switch (error.code()) {
        case ENOSPC:
        case EDQUOT:
        case ETIMEDOUT:
        case ECANCELED:
        case EOPNOTSUPP:
            return error.within(step);
        default:
            return Error(EIO, step + ": " + error.message());
    }
}
inline Error host_error(const Errno& error, const std::string& step) {
    return host_error(Error::from_errno(error.value(), step), "host");
}

/// TRY for a step whose errno is the host's and not the client's business.
#define TRY_HOST_IMPL(r, step, ...)                          \
    ({                                                       \
        auto r = (__VA_ARGS__);                              \
        if (!r.ok()) [[unlikely]]                            \
            return ::moat::cri::host_error(r.error(), step); \
        std::move(r).value();                                \
    })
#define TRY_HOST(step, ...) TRY_HOST_IMPL(TRY_CAT(try_host_, __COUNTER__), step, __VA_ARGS__)

}  // namespace moat::cri
