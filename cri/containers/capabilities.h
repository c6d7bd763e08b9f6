#pragma once

#include <string>
#include <vector>

#include "cri/base/error.h"

namespace moat::cri {

/// What a container gets with no word about capabilities: the set Docker and containerd settled on.
std::vector<std::string> default_capabilities();
/// `base` with `add` and without `drop`; names with or without CAP_, in any case; "ALL" stands for
/// all of them and is applied first, so that "add ALL, drop NET_RAW" means what it says. EINVAL
/// names an unknown capability.
Result<std::vector<std::string>> adjust_capabilities(std::vector<std::string> base,
                                                     const std::vector<std::string>& add,
                                                     const std::vector<std::string>& drop);
/// "NET_RAW" and "cap_net_raw" to "CAP_NET_RAW"; EINVAL for an unknown one.
Result<std::string> capability_name(const std::string& name);

}  // namespace moat::cri
