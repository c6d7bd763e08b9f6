#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cri/base/error.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

/// 64 hex digits from getrandom(2): the form of all ids of pods and containers.
std::string random_id();
/// CLOCK_REALTIME: for what is told, never for how long something takes.
int64_t now_ns();
/// The same, but never earlier than an earlier answer: kubelet passes over a state that is older
/// than the one it has, also after the clock was set back.
int64_t told_now_ns();
int64_t monotonic_ns();

/// The whole file; EFBIG when it is longer than `max_bytes`.
Result<std::string> read_file(const std::string& path, size_t max_bytes);
Result<std::string> read_fd(int fd, size_t max_bytes, const std::string& name);
Status write_all(int fd, std::string_view data, const std::string& name);
/// Writes and renames into place: a reader sees the old or the new content, after a kill too. Not
/// synced: what is written here does not outlive a power cut (pods, containers), or is waited for
/// by others (images/settler.h).
Status write_file(const std::string& path, std::string_view data, uint32_t mode = 0644);
/// mkdir -p. Directories that are made get `mode`.
Status make_directories(const std::string& path, uint32_t mode = 0755);
/// rm -rf that follows no link and does not cross into what is mounted below: a path that is not
/// there is a success.
Status remove_tree(const std::string& path);
Status sync_directory(const std::string& path);

/// An flock(2) on `path`, which is made if need be; released with the object.
class FileLock {
  public:
    enum class Mode { kShared, kExclusive };
    enum class Wait { kYes, kNo };
    /// EWOULDBLOCK when somebody holds it and `wait` is kNo.
    static Result<FileLock> acquire(const std::string& path, Mode mode, Wait wait = Wait::kYes);
    /// Exclusively, on a directory that is there and still is when the lock is had: ENOENT
    /// otherwise. EWOULDBLOCK when somebody holds it.
    static Result<FileLock> of_directory(const std::string& path);

  private:
    explicit FileLock(ScopedFd fd) : fd_(std::move(fd)) {}
    ScopedFd fd_;
};

}  // namespace moat::cri
