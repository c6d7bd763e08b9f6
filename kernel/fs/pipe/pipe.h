#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/file.h"
#include "kernel/mm/io_buffer.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

class Inode;

/// The bytes between the ends of a pipe or FIFO (pipe(7); Linux: struct pipe_inode_info). Shared by
/// its PipeFiles. A ring of bytes, where Linux has a ring of pages: what Linux's merging of short
/// writes leaves unused is usable here, so a pipe never holds less than Linux's, sometimes more.
///
/// Guest memory is copied with the pipe's lock held, as Linux does under pipe->mutex: a guest whose
/// memory is slow to appear delays those who use the same pipe, nobody else.
class Pipe final : public RefCounted {
  public:
    static constexpr size_t kDefaultCapacity = 65536;
    static constexpr size_t kMinCapacity = 4096;
    /// /proc/sys/fs/pipe-max-size
    static constexpr size_t kMaxUnprivilegedCapacity = 1 << 20;
    static constexpr size_t kMaxCapacity = 1u << 28;
    /// Writes up to this size are all or nothing, and POLLOUT promises room for one.
    static constexpr size_t kAtomic = 4096;

    Pipe();
    ~Pipe() override;

    /// Moves up to `destination.remaining()` bytes. 0: nothing is left and nobody can write.
    /// EAGAIN: nothing there yet.
    Result<size_t> read(IoBuffer& destination);
    /// O_DIRECT (pipe2(2)): what is written in one go, at most kAtomic at once, is read in one go.
    enum class Mode : bool { kStream, kPackets };
    /// Moves what fits; all or nothing up to kAtomic. EPIPE: nobody can read (the caller sends
    /// SIGPIPE). EAGAIN: no room.
    Result<size_t> write(IoBuffer& source, Mode mode = Mode::kStream);

    /// For tee(2) and splice(2): copies up to `size` bytes from `skip` on without taking them. 0
    /// and EAGAIN as for read(), where fewer than `skip` bytes count as nothing.
    Result<size_t> peek(void* destination, size_t size, size_t skip);

    /// FIONREAD.
    size_t size();
    size_t capacity();
    /// F_SETPIPE_SZ: rounds up to a power of two pages and returns the new capacity. EBUSY: more
    /// bytes are in the pipe; EPERM: beyond pipe-max-size or the sandbox's share without
    /// `privileged` (CAP_SYS_RESOURCE); EINVAL; ENOMEM.
    Result<size_t> set_capacity(size_t requested, bool privileged);

    WaitQueue& queue() { return queue_; }
    uint64_t ino() const { return ino_; }

  private:
    friend class PipeFile;

    bool reserve_storage_locked(size_t size) REQUIRES(mu_);
    Result<size_t> read_locked(IoBuffer& destination) REQUIRES(mu_);
    Result<size_t> take_locked(IoBuffer& destination, size_t most) REQUIRES(mu_);
    void drop_locked(size_t n) REQUIRES(mu_);
    Result<size_t> write_locked(IoBuffer& source, Mode mode) REQUIRES(mu_);
    void note_written_locked(size_t n, Mode mode) REQUIRES(mu_);
    size_t room_locked() const REQUIRES(mu_) { return size_ < capacity_ ? capacity_ - size_ : 0; }
    /// Linux's "not full": an atomic write would succeed.
    bool writable_locked() const REQUIRES(mu_) {
        return room_locked() >= kAtomic && pieces_.size() < capacity_ / kMinCapacity;
    }
    void discard_locked() REQUIRES(mu_);

    const uint64_t ino_;
    mutable Mutex<LockRank::kPipe> mu_;
    std::unique_ptr<char[]> storage_ GUARDED_BY(mu_);  // null until the first write
    size_t storage_size_ GUARDED_BY(mu_) = 0;
    size_t head_ GUARDED_BY(mu_) = 0;  // of the oldest byte in storage_
    size_t size_ GUARDED_BY(mu_) = 0;
    size_t capacity_ GUARDED_BY(mu_);
    /// What the bytes are made of, the oldest first; empty while there has been no packet since the
    /// pipe was last empty.
    struct Piece {
        size_t size;
        bool packet;
    };
    std::deque<Piece> pieces_ GUARDED_BY(mu_);
    uint32_t readers_ GUARDED_BY(mu_) = 0;
    uint32_t writers_ GUARDED_BY(mu_) = 0;
    // How often each end was ever opened: open(2) of a FIFO waits for these to move, so that a
    // partner that opened and closed at once still counts.
    uint64_t reader_opens_ GUARDED_BY(mu_) = 0;
    uint64_t writer_opens_ GUARDED_BY(mu_) = 0;
    WaitQueue queue_;
};

/// One open end (or, for a FIFO opened O_RDWR, both).
class PipeFile final : public File {
  public:
    enum class Kind : bool { kPipe, kFifo };

    /// A new description of `pipe`; `flags` as for open(2). ENXIO: a FIFO opened O_WRONLY |
    /// O_NONBLOCK that nobody reads. Never waits: finish_open() tells when open(2) may return.
    static Result<RefPtr<File>> open(RefPtr<Pipe> pipe, Kind kind, uint32_t flags, uint32_t uid,
                                     uint32_t gid);
    ~PipeFile() override;

    Pipe& pipe() const { return *pipe_; }

    std::string anonymous_name() const override;
    Result<size_t> read(Task& task, IoBuffer& destination) override;
    Result<size_t> write(Task& task, IoBuffer& source) override;
    Result<int64_t> ioctl(Task& task, uint32_t command, uint64_t argument) override;
    Result<int64_t> fcntl(Task& task, int command, uint64_t argument) override;
    Result<struct stat> stat(Task& task) override;
    Status finish_open(Task& task) override;
    Result<RefPtr<File>> reopen(Task& task, uint32_t flags) override;
    Result<size_t> peek(Task& task, void* destination, size_t size, size_t skip) override;
    bool is_pipe() const override { return true; }
    PollMask poll() override;
    WaitQueue* wait_queue() override { return &pipe_->queue_; }

  private:
    PipeFile(RefPtr<Pipe> pipe, uint32_t flags, uint32_t uid, uint32_t gid);

    bool reads() const { return access_ != 1; }   // O_WRONLY
    bool writes() const { return access_ != 0; }  // O_RDONLY

    const RefPtr<Pipe> pipe_;
    const uint32_t uid_, gid_;  // of an anonymous pipe
    const uint32_t access_;     // O_ACCMODE at open
    // Set by open() under the pipe's lock; then immutable.
    bool attached_ = false;
    uint64_t partner_opens_ = 0;  // what the other end's count was
    bool waits_for_partner_ = false;
    bool hangup_hidden_ = false;  // no POLLHUP until a writer has come (Linux: f_version)
};

/// pipe(2)'s two ends: reading, writing. `flags`: O_NONBLOCK, O_DIRECT.
std::pair<RefPtr<File>, RefPtr<File>> make_pipe(Task& task, uint32_t flags);

/// Inode::open of a FIFO (fifo(7)): joins the pipe that hangs on the inode's extras.
Result<RefPtr<File>> open_fifo(Task& task, Inode& inode, uint32_t flags);

/// Tells the VFS how FIFOs are opened (registry.h). At boot.
void register_fifos();

}  // namespace moat::kernel
