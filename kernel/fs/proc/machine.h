#pragma once

// The machine that guests are shown: how many CPUs and how much memory, as the plan says.

#include <atomic>
#include <cstdint>
#include <map>
#include <string>

#include "kernel/control/plan.h"

namespace moat::kernel {

inline constexpr int64_t kClockTicksPerSecond = 100;  // USER_HZ

struct Machine {
    uint32_t cpus = 1;
    std::atomic<uint64_t> memory_bytes{0};  ///< changed by set_machine_memory()
    int64_t boot_monotonic_ns = 0;
    int64_t boot_realtime_ns = 0;
    uint64_t tsc_khz = 0;                        ///< 0: unknown
    std::string boot_id;                         ///< a random UUID, new for each sentry
    std::string hostname;                        ///< the sandbox's
    std::map<std::string, std::string> sysctls;  ///< the plan's, by dotted name
};

/// Decides what is shown; before the sentry is confined (it asks the host), once. `platform` is one
/// word for the first lines of the kernel log, which this writes too.
void set_up_machine(const control::SandboxPlan& plan, const char* platform);
const Machine& machine();
/// The pod may have that much from now on; 0, or more than the host has: the host's.
void set_machine_memory(uint64_t bytes);
/// CLOCK_MONOTONIC since the sentry started.
int64_t uptime_ns();
/// A random UUID in text (version 4).
std::string random_uuid();
/// All of /proc/cpuinfo, from the processor itself (CPUID).
std::string cpuinfo_text();

}  // namespace moat::kernel
