#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "runtime/native/record.h"

namespace moat::runtime {

/// config.json of a native container, from the one that cri/ wrote: namespaces that the pod's
/// containers share are those of its pause process, the root is the overlay mount, the cgroup is
/// below the pod's. What the config says about the process namespace stands: with a path it is the
/// pod's, without an entry the node's.
struct NativeSpec {
    std::string config;
    std::string lower;  ///< the root that it named
    /// Limits of huge pages are ours to set once the cgroup is there: kubelet sends one of 0 for
    /// each size, and runc fails where the controller is missing, although nothing can be used
    /// there.
    std::map<std::string, uint64_t> huge_pages;
};
Result<NativeSpec> native_spec(const std::string& config, const NativePod& pod,
                               const NativeContainer& container);

}  // namespace moat::runtime
