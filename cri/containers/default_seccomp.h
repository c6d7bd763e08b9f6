#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace moat::cri {

/// The seccomp profile of RuntimeDefault for a native container with these capabilities, as OCI's
/// `linux.seccomp`.
nlohmann::json default_seccomp(const std::vector<std::string>& capabilities);

}  // namespace moat::cri
