#pragma once

#include <vector>

#include "kernel/base/scoped_fd.h"

namespace moat::platform {

/// Descriptors of cgroup `tasks` files that the first guest process joins before it does anything,
/// for a sandbox of one container: all others are born there. A process that moves itself costs
/// nothing; one that is moved by its pid costs cgroup v1 an RCU grace period, 10 ms and more. Call
/// it before HostProcess::start_platform(), which closes them.
void set_root_zygote_cgroups(std::vector<ScopedFd> cgroups);

}  // namespace moat::platform
