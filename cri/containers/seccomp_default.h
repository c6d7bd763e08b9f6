#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace moat::cri {

/// The profile that RuntimeDefault stands for, of both handlers: linux.seccomp of an OCI
/// configuration. An allow list, after the one that Docker and containerd settled on: what programs
/// of a container use is allowed, what administers a machine needs the capability for it, the rest
/// is EPERM. `bounding`: names of the container's bounding set ("CAP_SYS_ADMIN").
nlohmann::json runtime_default_seccomp(const std::vector<std::string>& bounding);

}  // namespace moat::cri
