#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "cri/base/error.h"
#include "cri/cdi/specs.h"
#include "cri/handlers/handlers.h"

namespace moat::cri {

/// Carries the devices' edits into a config.json: variables, mounts, and for Kernel::kNode device
/// nodes with the right to use them, hooks and groups. A sandboxed pod's kernel has its own devices
/// (containers/devices.h) and none of the node's: EOPNOTSUPP for others, and for hooks. EINVAL
/// names device, file and field of an edit that is wrong.
Status apply_cdi(nlohmann::json& spec, const std::vector<CdiDevice>& devices, Kernel kernel);

}  // namespace moat::cri
