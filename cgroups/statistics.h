#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moat::cgroups {

/// One line of a pressure file (Documentation/accounting/psi.rst).
struct Stall {
    double avg10 = 0;  ///< per cent of the last ten seconds
    double avg60 = 0;
    double avg300 = 0;
    uint64_t total_us = 0;
};

struct Pressure {
    Stall some;
    std::optional<Stall> full;  ///< kernels before 5.13 have none for the CPU
};

/// What one block device did for a cgroup and those below it.
struct DeviceIo {
    uint32_t major = 0;
    uint32_t minor = 0;
    uint64_t read_bytes = 0;
    uint64_t written_bytes = 0;
    uint64_t reads = 0;
    uint64_t writes = 0;
};

struct HugePages {
    std::string size;  ///< as the control files name it: "2MB", "1GB"
    uint64_t usage_bytes = 0;
    std::optional<uint64_t> max_usage_bytes;  ///< v1 only
};

/// Figures of a cgroup and all below it. What the machine's controllers do not offer stays 0, an
/// empty list, or without a value.
struct Statistics {
    uint64_t cpu_usage_ns = 0;
    uint64_t cpu_user_ns = 0;
    uint64_t cpu_system_ns = 0;
    uint64_t cpu_periods = 0;  ///< of the quota, that have passed
    uint64_t cpu_throttled_periods = 0;
    uint64_t cpu_throttled_ns = 0;
    uint64_t cpu_shares = 0;    ///< v1's unit
    uint64_t cpu_quota_us = 0;  ///< 0: none
    uint64_t cpu_period_us = 0;

    uint64_t memory_usage_bytes = 0;
    uint64_t memory_max_usage_bytes = 0;
    uint64_t memory_working_set_bytes =
        0;                            ///< usage without inactive file pages, as cAdvisor has it
    uint64_t memory_rss_bytes = 0;    ///< anonymous memory
    uint64_t memory_cache_bytes = 0;  ///< file pages, tmpfs included
    uint64_t memory_mapped_file_bytes = 0;
    uint64_t memory_kernel_bytes = 0;
    uint64_t memory_limit_bytes = 0;        ///< 0: none
    uint64_t memory_reservation_bytes = 0;  ///< 0: none
    uint64_t memory_limit_hits = 0;         ///< how often the limit stood in the way
    uint64_t page_faults = 0;
    uint64_t major_page_faults = 0;
    /// Without a value: the kernel does not account swap.
    std::optional<uint64_t> swap_usage_bytes;
    std::optional<uint64_t> swap_limit_bytes;  ///< of swap alone; no value as well: no limit
    uint64_t oom_kills = 0;

    uint64_t pids = 0;        ///< tasks, as the pids controller counts
    uint64_t pids_limit = 0;  ///< 0: none
    std::vector<DeviceIo> io;
    std::vector<HugePages> huge_pages;
    std::optional<Pressure> cpu_pressure;  ///< v2 with PSI only, like the next two
    std::optional<Pressure> memory_pressure;
    std::optional<Pressure> io_pressure;
};

}  // namespace moat::cgroups
