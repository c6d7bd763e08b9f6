#pragma once

#include <string>

#include "cgroups/cgroup.h"

namespace moat::cgroups {

/// Fills the memory fields from v1's directory of the memory hierarchy.
void read_v1_memory(const std::string& directory, Statistics& out);
/// Fills everything from a v2 directory; what its controllers do not offer stays 0.
void read_v2(const std::string& directory, Statistics& out);

}  // namespace moat::cgroups
