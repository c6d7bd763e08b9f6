#pragma once

#include <map>
#include <string>

#include "cri/base/error.h"

namespace moat::cri {

/// A pod's sysctls by their dotted names.
using Sysctls = std::map<std::string, std::string>;

/// Only what Linux keeps apart for a namespace of the pod's own may be set: kernel.shm*,
/// kernel.msg*, kernel.sem, fs.mqueue.*, and net.* unless the pod lives in the node's network.
/// EINVAL names the first that is none of these.
enum class OwnNetwork : bool { kNo, kYes };
Status check_sysctls(const Sysctls& sysctls, OwnNetwork network);

/// Writes those of net.* into the network namespace at `path`: the sockets of a sandboxed pod are
/// the host kernel's. Not ip_unprivileged_port_start and ping_group_range, which have to let the
/// sentry do what its guests may; they are shown inside as they were asked for. EINVAL names a
/// sysctl that this kernel does not have or whose value it refuses.
Status write_network_sysctls(const Sysctls& sysctls, const std::string& path);

}  // namespace moat::cri
