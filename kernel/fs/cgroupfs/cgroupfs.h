#pragma once

#include <cstdint>
#include <functional>

namespace moat::kernel {

class Container;

/// Limits and use of a container as its host cgroup has them. 0 as a limit: none.
struct CgroupFigures {
    uint64_t memory_max = 0;
    uint64_t memory_current = 0;
    uint64_t cpu_quota_us = 0;  ///< of each period
    uint64_t cpu_period_us = 100000;
    uint64_t cpu_weight = 100;
    uint64_t cpu_usage_us = 0;
    uint64_t oom_kills = 0;
    uint64_t pids_max = 0;
    uint64_t pids_current = 0;
};
using CgroupSource = std::function<CgroupFigures(const Container&)>;

/// Registers "cgroup" and "cgroup2": a read-only view of version 2 with one group, the container's
/// own as its root (as in a cgroup namespace). At boot.
void register_cgroupfs();
/// Where the figures come from. Until it is set they are those the sentry knows itself: use by its
/// guests' processes, the container's limits as the runtime told them.
void set_cgroup_source(CgroupSource source);

}  // namespace moat::kernel
