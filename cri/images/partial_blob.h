#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "cri/base/error.h"
#include "cri/base/sha256.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

/// A blob on its way here: a file, and the sum of what is in it. The file stays when the object
/// goes, unless discard() was called, and is taken up again by the next who wants the blob, also
/// after a kill.
class PartialBlob {
  public:
    PartialBlob(std::string path, ScopedFd fd, bool shared)
        : path_(std::move(path)), fd_(std::move(fd)), shared_(shared) {}
    PartialBlob(PartialBlob&&) noexcept = default;
    ~PartialBlob();

    /// Sums up what an earlier download left; more than `length` bytes of it are of no use.
    Status resume(int64_t length);
    Status append(std::string_view data);
    /// Forgets what is there.
    Status restart();
    int64_t size() const { return size_; }
    /// Whether some of it was there before.
    bool resumed() const { return resumed_; }
    /// Of all of it; ends the sum.
    std::string digest() { return sum_.digest(); }
    void discard();
    const std::string& path() const { return path_; }

  private:
    std::string path_;
    ScopedFd fd_;  ///< locked: one download at a time
    bool shared_;  ///< others may find it by its name
    int64_t size_ = 0;
    bool resumed_ = false;
    Sha256 sum_;
};

/// The directory of these files, named by digest. Any number of threads and processes.
class PartialBlobs {
  public:
    PartialBlobs(std::string directory, uint64_t max_bytes)
        : directory_(std::move(directory)), max_bytes_(max_bytes) {}

    Result<PartialBlob> open(const std::string& digest);
    /// Removes what nobody came back for within a day, then the oldest until no more than the bound
    /// is left. What somebody is downloading stays.
    void trim();

  private:
    const std::string directory_;
    const uint64_t max_bytes_;
};

}  // namespace moat::cri
