#pragma once

#include "kernel/base/mutex.h"
#include "kernel/fs/file.h"

namespace moat::kernel {

/// Position handling for files that have one: read, write and seek in terms of pread, pwrite,
/// append and size. read_some/write_some must not wait for the gofer: the position's lock is held.
class RegularFile : public File {
  public:
    Result<size_t> read(Task& task, IoBuffer& destination) override;
    Result<size_t> write(Task& task, IoBuffer& source) override;
    Result<size_t> pread(Task& task, IoBuffer& destination, int64_t offset) override = 0;
    /// Linux: O_APPEND wins over the offset.
    Result<size_t> pwrite(Task& task, IoBuffer& source, int64_t offset) override = 0;
    Result<int64_t> seek(Task& task, int64_t offset, int whence) override;
    bool can_epoll() override { return false; }
    /// RWF_APPEND (pwritev2(2)): as if O_APPEND were set for this once.
    enum class Position : bool { kStays, kMoves };
    Result<size_t> write_at_end(Task& task, IoBuffer& source, Position position);

  protected:
    explicit RegularFile(uint32_t flags) : File(flags) {}
    /// Where the file ends, for SEEK_END.
    virtual Result<int64_t> size(Task& task) = 0;
    /// Writes at the end, atomically against other writers; `end` is the position afterwards.
    virtual Result<size_t> append(Task& task, IoBuffer& source, int64_t& end) = 0;
    /// SEEK_DATA and SEEK_HOLE; by default all is data. ENXIO at or beyond the end.
    virtual Result<int64_t> seek_data(Task& task, int64_t offset, int whence);

  private:
    Mutex<LockRank::kFilePosition> mu_;
    int64_t position_ GUARDED_BY(mu_) = 0;
};

/// RLIMIT_FSIZE: cuts `source` to what may be written at `offset`; EFBIG and SIGXFSZ when that is
/// nothing (setrlimit(2)).
Status limit_file_size(Task& task, IoBuffer& source, int64_t offset);
/// The same for a new size.
Status limit_file_size(Task& task, int64_t size);

}  // namespace moat::kernel
