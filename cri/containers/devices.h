#pragma once

#include <string>

#include "cri/base/error.h"

namespace moat::cri {

/// A sandboxed pod's kernel has these devices itself, in every container: /dev/null, zero, full,
/// random, urandom and tty. A request for one of them at its own place asks for what is there.
/// EOPNOTSUPP for every other: the node's devices are not passed through. `field` is for messages.
Status check_sandbox_device(const std::string& host_path, const std::string& container_path,
                            const std::string& field);

}  // namespace moat::cri
