#pragma once

// Reading and writing the small files of a cgroup directory.

#include <string>
#include <vector>

#include "cgroups/cgroup.h"

namespace moat::cgroups {

Result<std::string> read_file(const std::string& path);
/// One write(2), as the kernel wants it. The error names the file and the value.
Status write_file(const std::string& path, const std::string& value);
bool exists(const std::string& path);
/// First number in the file; 0 if there is no file or no number ("max").
uint64_t read_number(const std::string& path);
/// The value of "key N" in flat-keyed text; 0 if there is none.
uint64_t flat_value(const std::string& text, const std::string& key);
/// The sizes of the files "hugetlb.SIZE<suffix>" in the directory; reserved counts are passed over.
std::vector<std::string> huge_page_sizes(const std::string& directory, const std::string& suffix);

/// EINVAL for a page size that could not be part of a file's name.
Status check_page_sizes(const Limits& limits);

/// Writes control files of one cgroup and, unless keep() is called, puts their old content back
/// when it ends, the last one first: what held together before holds together on the way back.
class FileChanges final : public LimitChange {
  public:
    FileChanges() = default;
    FileChanges(const FileChanges&) = delete;
    FileChanges& operator=(const FileChanges&) = delete;
    ~FileChanges() override;
    Status write(const std::string& path, const std::string& value);
    void keep() override { old_.clear(); }

  private:
    struct Old {
        std::string path;
        std::string value;
    };
    std::vector<Old> old_;
};

/// mkdir -p below `mount_point`, calling `made(directory)` for each that was not there before.
Status make_directories(const std::string& mount_point, const std::string& path,
                        Status (*made)(const std::string& directory));
std::vector<std::string> missing_directories(const std::string& mount_point,
                                             const std::string& path);
/// cgroup.procs of the directory and of all below it.
std::vector<pid_t> processes_below(const std::string& directory);
/// SIGKILLs what processes_below() shows until it shows nothing; ETIMEDOUT after five seconds.
Status kill_below(const std::string& directory);
/// Waits 1 ms, 2 ms, ... between polls of a file that v1 cannot notify about.
class Backoff {
  public:
    explicit Backoff(int limit_ms) : left_us_(limit_ms * 1000) {}
    /// False when the time is used up.
    bool wait();

  private:
    int step_us_ = 100;
    int left_us_;
};

}  // namespace moat::cgroups
