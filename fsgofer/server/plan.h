#pragma once

#include <string>
#include <string_view>

#include "fsgofer/protocol/plan.h"
#include "kernel/base/result.h"

namespace moat::gofer {

/// An error on the way to being ready: the errno, and in words what was tried.
struct SetupError {
    int code = 0;
    std::string message;

    static SetupError from_errno(int code, std::string step);
};

template <typename T = void>
using SetupResult = Result<T, SetupError>;

/// Reads and checks a plan (fsgofer/protocol/plan.h).
SetupResult<GoferPlan> parse_plan(std::string_view json);
/// The same from a descriptor, to its end.
SetupResult<GoferPlan> read_plan(int fd);

/// A mount's options, checked.
struct MountOptions {
    bool read_only = false;      ///< with all that is mounted below
    bool read_only_top = false;  ///< without
    bool no_suid = true;
    bool no_dev = true;
    bool no_exec = false;
    bool no_atime = false;
    bool connect = false;
    bool devices = false;
    bool fifos = false;
    bool slave = false;  ///< mounts made on the host below the source appear here too
    /// MountFlags of the protocol.
    uint32_t flags() const;
};
SetupResult<MountOptions> parse_options(const GoferMount& mount);

}  // namespace moat::gofer
