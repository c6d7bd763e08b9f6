#include "cgroups/stats.h"

#include "cgroups/files.h"

namespace moat::cgroups {

namespace {

uint64_t working_set(uint64_t usage, uint64_t inactive_file) {
    return usage > inactive_file ? usage - inactive_file : 0;
}

}  // namespace

void read_v1_memory(const std::string& directory, Statistics& out) {
    out.memory_usage_bytes = read_number(directory + "/memory.usage_in_bytes");
    // "no limit" is the largest multiple of a page in a long.
    const uint64_t limit = read_number(directory + "/memory.limit_in_bytes");
    out.memory_limit_bytes = limit >= (1ull << 62) ? 0 : limit;
    const std::string stat = read_file(directory + "/memory.stat").value_or("");
    out.memory_working_set_bytes =
        working_set(out.memory_usage_bytes, flat_value(stat, "total_inactive_file"));
    out.memory_rss_bytes = flat_value(stat, "total_rss");
    out.page_faults = flat_value(stat, "total_pgfault");
    out.major_page_faults = flat_value(stat, "total_pgmajfault");
    out.oom_kills =
        flat_value(read_file(directory + "/memory.oom_control").value_or(""), "oom_kill");
}

void read_v2(const std::string& directory, Statistics& out) {
    out.cpu_usage_ns =
        flat_value(read_file(directory + "/cpu.stat").value_or(""), "usage_usec") * 1000;
    out.memory_usage_bytes = read_number(directory + "/memory.current");
    out.memory_limit_bytes = read_number(directory + "/memory.max");
    const std::string stat = read_file(directory + "/memory.stat").value_or("");
    out.memory_working_set_bytes =
        working_set(out.memory_usage_bytes, flat_value(stat, "inactive_file"));
    out.memory_rss_bytes = flat_value(stat, "anon");
    out.page_faults = flat_value(stat, "pgfault");
    out.major_page_faults = flat_value(stat, "pgmajfault");
    out.pids = read_number(directory + "/pids.current");
    out.oom_kills = flat_value(read_file(directory + "/memory.events").value_or(""), "oom_kill");
}

}  // namespace moat::cgroups
