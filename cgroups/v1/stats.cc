#include "cgroups/stats.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cgroups/files.h"

namespace moat::cgroups {

namespace {

/// "no limit" is the largest multiple of a page in a long.
uint64_t limit_of(const std::string& file) {
    const uint64_t limit = read_number(file);
    return limit >= (1ull << 62) ? 0 : limit;
}

/// Lines "MAJOR:MINOR Read|Write N" of a blkio file; others ("Sync", "Total") are passed over.
template <typename F>
void each_device(const std::string& file, std::vector<DeviceIo>& devices, F note) {
    const std::string text = read_file(file).value_or("");
    for (size_t at = 0; at < text.size();) {
        unsigned major, minor;
        char operation[16];
        unsigned long long value;
        if (sscanf(text.c_str() + at, "%u:%u %15s %llu", &major, &minor, operation, &value) == 4) {
            DeviceIo* device = nullptr;
            for (DeviceIo& known : devices) {
                if (known.major == major && known.minor == minor) {
                    device = &known;
                }
            }
            if (device == nullptr) {
                device = &devices.emplace_back();
                device->major = major;
                device->minor = minor;
            }
            note(*device, operation, value);
        }
        const size_t end = text.find('\n', at);
        at = end == std::string::npos ? text.size() : end + 1;
    }
}

}  // namespace

void read_v1_cpuacct(const std::string& directory, Statistics& out) {
    out.cpu_usage_ns = read_number(directory + "/cpuacct.usage");
    if (exists(directory + "/cpuacct.usage_user")) {
        out.cpu_user_ns = read_number(directory + "/cpuacct.usage_user");
        out.cpu_system_ns = read_number(directory + "/cpuacct.usage_sys");
        return;
    }
    const std::string stat = read_file(directory + "/cpuacct.stat").value_or("");
    const uint64_t tick_ns = 1'000'000'000ull / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK));
    out.cpu_user_ns = flat_value(stat, "user") * tick_ns;
    out.cpu_system_ns = flat_value(stat, "system") * tick_ns;
}

void read_v1_cpu(const std::string& directory, Statistics& out) {
    const std::string stat = read_file(directory + "/cpu.stat").value_or("");
    out.cpu_periods = flat_value(stat, "nr_periods");
    out.cpu_throttled_periods = flat_value(stat, "nr_throttled");
    out.cpu_throttled_ns = flat_value(stat, "throttled_time");
    out.cpu_shares = read_number(directory + "/cpu.shares");
    const std::string quota = read_file(directory + "/cpu.cfs_quota_us").value_or("-1");
    out.cpu_quota_us = quota[0] == '-' ? 0 : read_number(directory + "/cpu.cfs_quota_us");
    out.cpu_period_us = read_number(directory + "/cpu.cfs_period_us");
}

void read_v1_memory(const std::string& directory, Statistics& out) {
    out.memory_usage_bytes = read_number(directory + "/memory.usage_in_bytes");
    out.memory_max_usage_bytes = read_number(directory + "/memory.max_usage_in_bytes");
    out.memory_limit_bytes = limit_of(directory + "/memory.limit_in_bytes");
    out.memory_reservation_bytes = limit_of(directory + "/memory.soft_limit_in_bytes");
    out.memory_kernel_bytes = read_number(directory + "/memory.kmem.usage_in_bytes");
    out.memory_limit_hits = read_number(directory + "/memory.failcnt");
    const std::string stat = read_file(directory + "/memory.stat").value_or("");
    out.memory_working_set_bytes =
        working_set(out.memory_usage_bytes, flat_value(stat, "total_inactive_file"));
    out.memory_rss_bytes = flat_value(stat, "total_rss");
    out.memory_cache_bytes = flat_value(stat, "total_cache");
    out.memory_mapped_file_bytes = flat_value(stat, "total_mapped_file");
    out.page_faults = flat_value(stat, "total_pgfault");
    out.major_page_faults = flat_value(stat, "total_pgmajfault");
    if (exists(directory + "/memory.memsw.limit_in_bytes")) {
        out.swap_usage_bytes = flat_value(stat, "total_swap");
        const uint64_t sum = limit_of(directory + "/memory.memsw.limit_in_bytes");
        if (sum != 0) {
            out.swap_limit_bytes = sum > out.memory_limit_bytes ? sum - out.memory_limit_bytes : 0;
        }
    }
    out.oom_kills =
        flat_value(read_file(directory + "/memory.oom_control").value_or(""), "oom_kill");
}

void read_v1_pids(const std::string& directory, Statistics& out) {
    out.pids = read_number(directory + "/pids.current");
    out.pids_limit = read_number(directory + "/pids.max");
}

void read_v1_blkio(const std::string& directory, Statistics& out) {
    each_device(directory + "/blkio.throttle.io_service_bytes_recursive", out.io,
                [](DeviceIo& device, const char* operation, uint64_t value) {
                    if (strcmp(operation, "Read") == 0) {
                        device.read_bytes = value;
                    } else if (strcmp(operation, "Write") == 0) {
                        device.written_bytes = value;
                    }
                });
    each_device(directory + "/blkio.throttle.io_serviced_recursive", out.io,
                [](DeviceIo& device, const char* operation, uint64_t value) {
                    if (strcmp(operation, "Read") == 0) {
                        device.reads = value;
                    } else if (strcmp(operation, "Write") == 0) {
                        device.writes = value;
                    }
                });
}

void read_v1_hugetlb(const std::string& directory, Statistics& out) {
    for (const std::string& size : huge_page_sizes(directory, ".usage_in_bytes")) {
        const std::string prefix = directory + "/hugetlb." + size;
        out.huge_pages.push_back({size, read_number(prefix + ".usage_in_bytes"),
                                  read_number(prefix + ".max_usage_in_bytes")});
    }
}

}  // namespace moat::cgroups
