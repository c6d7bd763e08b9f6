#include "kernel/platform/cpu_hold.h"

#include <sched.h>

#include <cstring>

namespace moat::platform {

namespace {

/// Every CPU there may be: the host takes what the cgroup's cpuset allows out of it, now and
/// whenever that changes.
const cpu_set_t& any_cpu() {
    static const cpu_set_t set = [] {
        cpu_set_t all;
        std::memset(&all, 0xff, sizeof all);
        return all;
    }();
    return set;
}

}  // namespace

CpuHold::CpuHold(pid_t tid) : tid_(tid) {
    const int cpu = ::sched_getcpu();
    if (cpu < 0 || cpu >= CPU_SETSIZE) {
        return;
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    held_ = ::sched_setaffinity(tid, sizeof set, &set) == 0;
}

void CpuHold::release(pid_t tid) const {
    if (held_) {
        (void)::sched_setaffinity(tid, sizeof any_cpu(), &any_cpu());
    }
}

}  // namespace moat::platform
