#pragma once

// Reading a cgroup's figures out of its directories.

#include <optional>
#include <string>

#include "cgroups/statistics.h"

namespace moat::cgroups {

/// v1: each fills in what its hierarchy's directory of the cgroup tells.
void read_v1_cpuacct(const std::string& directory, Statistics& out);
void read_v1_cpu(const std::string& directory, Statistics& out);
void read_v1_memory(const std::string& directory, Statistics& out);
void read_v1_pids(const std::string& directory, Statistics& out);
void read_v1_blkio(const std::string& directory, Statistics& out);
void read_v1_hugetlb(const std::string& directory, Statistics& out);
/// Everything, from a v2 directory.
void read_v2(const std::string& directory, Statistics& out);

/// A pressure file; no value when it is missing or PSI is switched off (reading fails then).
std::optional<Pressure> read_pressure(const std::string& file);
/// Usage without inactive file pages.
uint64_t working_set(uint64_t usage, uint64_t inactive_file);

}  // namespace moat::cgroups
