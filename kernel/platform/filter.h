#pragma once

#include <linux/filter.h>

#include <vector>

namespace moat::platform {

/// The seccomp filter of every guest thread; see filter.cc for each rule's reason. Fits the room
/// that the stub keeps for it (64 instructions).
std::vector<sock_filter> build_guest_filter();

}  // namespace moat::platform
