#include "cgroups/stats.h"

#include <stdio.h>
#include <stdlib.h>

#include "cgroups/cgroup.h"
#include "cgroups/files.h"

namespace moat::cgroups {

namespace {

/// "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6", one line a device; keys come and go.
std::vector<DeviceIo> read_io_stat(const std::string& file) {
    std::vector<DeviceIo> devices;
    const std::string text = read_file(file).value_or("");
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find('\n', at), text.size());
        const std::string line = text.substr(at, end - at) + " ";
        at = end + 1;
        DeviceIo device;
        if (sscanf(line.c_str(), "%u:%u", &device.major, &device.minor) != 2) {
            continue;
        }
        const auto value = [&](const std::string& key) -> uint64_t {
            const size_t found = line.find(" " + key + "=");
            return found == std::string::npos
                       ? 0
                       : strtoull(line.c_str() + found + key.size() + 2, nullptr, 10);
        };
        device.read_bytes = value("rbytes");
        device.written_bytes = value("wbytes");
        device.reads = value("rios");
        device.writes = value("wios");
        devices.push_back(device);
    }
    return devices;
}

}  // namespace

void read_v2(const std::string& directory, Statistics& out) {
    const std::string cpu = read_file(directory + "/cpu.stat").value_or("");
    out.cpu_usage_ns = flat_value(cpu, "usage_usec") * 1000;
    out.cpu_user_ns = flat_value(cpu, "user_usec") * 1000;
    out.cpu_system_ns = flat_value(cpu, "system_usec") * 1000;
    out.cpu_periods = flat_value(cpu, "nr_periods");
    out.cpu_throttled_periods = flat_value(cpu, "nr_throttled");
    out.cpu_throttled_ns = flat_value(cpu, "throttled_usec") * 1000;
    if (const uint64_t weight = read_number(directory + "/cpu.weight"); weight != 0) {
        out.cpu_shares = shares_from_weight(weight);
    }
    const std::string max = read_file(directory + "/cpu.max").value_or("");
    out.cpu_quota_us = strtoull(max.c_str(), nullptr, 10);  // "max": 0
    if (const size_t space = max.find(' '); space != std::string::npos) {
        out.cpu_period_us = strtoull(max.c_str() + space, nullptr, 10);
    }

    out.memory_usage_bytes = read_number(directory + "/memory.current");
    out.memory_max_usage_bytes = read_number(directory + "/memory.peak");
    out.memory_limit_bytes = read_number(directory + "/memory.max");
    out.memory_reservation_bytes = read_number(directory + "/memory.low");
    const std::string stat = read_file(directory + "/memory.stat").value_or("");
    out.memory_working_set_bytes =
        working_set(out.memory_usage_bytes, flat_value(stat, "inactive_file"));
    out.memory_rss_bytes = flat_value(stat, "anon");
    out.memory_cache_bytes = flat_value(stat, "file");
    out.memory_mapped_file_bytes = flat_value(stat, "file_mapped");
    out.memory_kernel_bytes = flat_value(stat, "kernel");
    out.page_faults = flat_value(stat, "pgfault");
    out.major_page_faults = flat_value(stat, "pgmajfault");
    if (const auto swap = read_file(directory + "/memory.swap.current"); swap.ok()) {
        out.swap_usage_bytes = strtoull(swap->c_str(), nullptr, 10);
        const std::string limit = read_file(directory + "/memory.swap.max").value_or("max");
        if (limit[0] != 'm') {
            out.swap_limit_bytes = strtoull(limit.c_str(), nullptr, 10);
        }
    }
    const std::string events = read_file(directory + "/memory.events").value_or("");
    out.memory_limit_hits = flat_value(events, "max");
    out.oom_kills = flat_value(events, "oom_kill");

    out.pids = read_number(directory + "/pids.current");
    out.pids_limit = read_number(directory + "/pids.max");
    out.io = read_io_stat(directory + "/io.stat");
    for (const std::string& size : huge_page_sizes(directory, ".current")) {
        out.huge_pages.push_back(
            {size, read_number(directory + "/hugetlb." + size + ".current"), std::nullopt});
    }
    out.cpu_pressure = read_pressure(directory + "/cpu.pressure");
    out.memory_pressure = read_pressure(directory + "/memory.pressure");
    out.io_pressure = read_pressure(directory + "/io.pressure");
}

}  // namespace moat::cgroups
