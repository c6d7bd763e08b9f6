#pragma once

#include <string>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/fs/inode.h"

namespace moat::kernel {

struct DirectoryEntry {
    std::string name;
    uint64_t ino = 0;
    uint8_t type = 0;  ///< DT_REG, ...
};

/// An open directory whose entries are listed as a whole when it is read from its start, so that
/// entries that come and go meanwhile neither repeat nor hide others. "." and ".." are added here.
class DirectoryFile : public File {
  public:
    Status read_directory(Task& task, DirectorySink& sink) override;
    Result<int64_t> seek(Task& task, int64_t offset, int whence) override;
    Result<size_t> read(Task&, IoBuffer&) override { return Errno(EISDIR); }
    Result<size_t> pread(Task&, IoBuffer&, int64_t) override { return Errno(EISDIR); }
    bool can_epoll() override { return false; }

  protected:
    explicit DirectoryFile(uint32_t flags) : File(flags) {}
    /// All entries but "." and "..". Called without locks.
    virtual Result<std::vector<DirectoryEntry>> list(Task& task) = 0;

  private:
    Mutex<LockRank::kFilePosition> mu_;
    int64_t position_ GUARDED_BY(mu_) = 0;
    bool listed_ GUARDED_BY(mu_) = false;
    std::vector<DirectoryEntry> entries_ GUARDED_BY(mu_);
};

constexpr uint8_t directory_type(uint32_t mode) {
    return static_cast<uint8_t>((mode & S_IFMT) >> 12);
}

}  // namespace moat::kernel
