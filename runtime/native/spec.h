#pragma once

#include <string>

#include "runtime/native/record.h"

namespace moat::runtime {

/// config.json of a native container, from the one that cri/ wrote: namespaces that the pod's
/// containers share are those of its pause process, the root is the overlay mount, the cgroup is
/// below the pod's. What the config says about the process namespace stands: with a path it is the
/// pod's, without an entry the node's. `lower` gets the root that it named.
Result<std::string> native_spec(const std::string& config, const NativePod& pod,
                                const NativeContainer& container, std::string& lower);

}  // namespace moat::runtime
