#pragma once

#include <nlohmann/json.hpp>

#include "cri/containers/spec.h"

namespace moat::cri {

/// What config.json says about the node's own kernel, for a container of the handler `native`:
/// devices and their rules, seccomp, limits that this moatd may not exceed itself. `spec` is
/// otherwise complete.
Status add_native(nlohmann::json& spec, const SpecInput& input);

}  // namespace moat::cri
