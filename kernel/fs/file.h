#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/fs/path.h"
#include "kernel/mm/io_buffer.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

class Task;

/// Receives directory entries for getdents64(2).
class DirectorySink {
  public:
    virtual ~DirectorySink() = default;
    /// `next_offset` is the position after this entry. False: no room, the entry was not taken.
    virtual bool add(std::string_view name, uint64_t ino, uint8_t d_type, int64_t next_offset) = 0;
};

/// What mmap(2) maps: a host descriptor to be given to the guest's host process, and how file
/// offsets relate to it.
struct MapSource {
    int host_fd = -1;               ///< borrowed from the file
    int64_t offset_shift = 0;       ///< host offset = file offset + shift
    bool may_write_shared = false;  ///< the descriptor allows MAP_SHARED with PROT_WRITE
};

/// An open file description (Linux: struct file): what descriptors share after dup and fork. All
/// operations are attempts: they never wait, they give EAGAIN, and the syscall layer blocks on
/// wait_queue(). `task` is the caller, for credentials and signals (SIGPIPE is the syscall
/// layer's).
class File : public RefCounted {
  public:
    /// Access mode and status flags as for open(2): O_RDONLY..., O_APPEND, O_NONBLOCK, ...
    uint32_t flags() const { return flags_.load(std::memory_order_relaxed); }
    void set_flags(uint32_t flags) { flags_.store(flags, std::memory_order_relaxed); }
    bool readable() const { return (flags() & 3) != 1; }  // O_WRONLY
    bool writable() const { return (flags() & 3) != 0; }  // O_RDONLY
    bool nonblocking() const;
    /// Where it was opened; a null path for files with no name (pipes, sockets, epoll).
    const Path& path() const { return path_; }
    void set_path(Path path) { path_ = std::move(path); }
    /// For /proc/self/fd: "pipe:[12]", "socket:[3]", "anon_inode:[eventpoll]"; unused with a path.
    virtual std::string anonymous_name() const { return "anon_inode:[file]"; }

    /// At the current position (streams have none). EINVAL by default.
    virtual Result<size_t> read(Task& task, IoBuffer& destination);
    virtual Result<size_t> write(Task& task, IoBuffer& source);
    /// At `offset`, which stays where it is. ESPIPE by default.
    virtual Result<size_t> pread(Task& task, IoBuffer& destination, int64_t offset);
    virtual Result<size_t> pwrite(Task& task, IoBuffer& source, int64_t offset);
    /// lseek(2). ESPIPE by default.
    virtual Result<int64_t> seek(Task& task, int64_t offset, int whence);
    /// Entries from the current position. ENOTDIR by default.
    virtual Status read_directory(Task& task, DirectorySink& sink);
    /// ioctl(2) beyond FIONBIO, FIOCLEX and their like. ENOTTY by default.
    virtual Result<int64_t> ioctl(Task& task, uint32_t command, uint64_t argument);
    /// fstat(2); by default that of the path's inode.
    virtual Result<struct stat> stat(Task& task);
    virtual Status truncate(Task& task, int64_t size);
    virtual Status allocate(Task& task, int mode, int64_t offset, int64_t size);
    virtual Status sync(Task& task, bool data_only);
    /// ENODEV by default.
    virtual Result<MapSource> map_source(Task& task, int prot, bool shared);

    /// What is ready now. Regular files: always EPOLLIN | EPOLLOUT.
    virtual PollMask poll() { return EPOLLIN | EPOLLOUT; }
    /// Told when poll() may have changed; null: it never does.
    virtual WaitQueue* wait_queue() { return nullptr; }
    /// For epoll_ctl: EPERM for what cannot be polled (regular files, directories).
    virtual bool can_epoll() { return wait_queue() != nullptr; }
    /// A descriptor of this file was closed by `task` (POSIX locks go; Linux: f_op->flush).
    /// Overriders call the base.
    virtual void flush(Task& task);
    /// fcntl(2) commands of one kind of file: F_GETPIPE_SZ, F_SETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS.
    /// EINVAL by default.
    virtual Result<int64_t> fcntl(Task& task, int command, uint64_t argument);
    /// open(2) of a FIFO waits for its other end: EAGAIN until it may return; asked again when
    /// wait_queue() tells. The file is only installed in a descriptor table afterwards.
    virtual Status finish_open([[maybe_unused]] Task& task) { return {}; }
    /// open(2) of /proc/self/fd/N where N has no path: a new description of the same pipe,
    /// terminal... ENXIO by default, as for sockets.
    virtual Result<RefPtr<File>> reopen(Task& task, uint32_t flags);
    /// Data waiting in a pipe, copied without being taken, for tee(2) and splice(2): up to `size`
    /// bytes from `skip` on. EAGAIN: nothing there and writers are left; 0: end of file. EINVAL by
    /// default: not a pipe.
    virtual Result<size_t> peek(Task& task, void* destination, size_t size, size_t skip);
    /// SO_RCVTIMEO, SO_SNDTIMEO: how long read(2) and write(2) wait, in nanoseconds.
    virtual int64_t read_timeout_ns() { return INT64_MAX; }
    virtual int64_t write_timeout_ns() { return INT64_MAX; }
    /// Whether EPIPE comes with SIGPIPE: not from sockets of datagrams and packets.
    virtual bool raises_sigpipe() const { return true; }
    /// True: splice(2) may be used with it as the pipe of the two.
    virtual bool is_pipe() const { return false; }
    /// A directory's descriptor may be the start of a walk, and a descriptor opened with O_PATH may
    /// be used for nothing else.
    bool is_path_only() const { return (flags() & 010000000) != 0; }

    /// F_SETOWN's value: a process, or minus a process group.
    int32_t owner() const { return owner_.load(std::memory_order_relaxed); }
    void set_owner(int32_t owner) { owner_.store(owner, std::memory_order_relaxed); }
    /// It holds a begin_writing() or begin_executing() of its path's inode, and gives it back in
    /// the end, or before by release_inode(). Only by who has opened it.
    enum class Holds : uint8_t { kNothing, kWriting, kExecuting };
    void hold_inode(Holds what) { holds_ = what; }
    void release_inode();
    /// Set once this description has taken an advisory lock; the destructor then releases.
    void note_locked() { locked_.store(true, std::memory_order_relaxed); }

    ~File() override;

  protected:
    explicit File(uint32_t flags) : flags_(flags) {}
    /// The last descriptor, mapping and call are gone: epoll instances forget the file while it is
    /// still whole (kernel/fs/epoll/epoll.cc).
    void last_unref() final;

  private:
    friend class EpollTopology;
    std::atomic<bool> epolled_{false};  // set once an epoll instance watches it; never cleared
    std::atomic<uint32_t> flags_;       // relaxed: no other data depends on it
    std::atomic<int32_t> owner_{0};
    std::atomic<bool> locked_{false};
    Holds holds_ = Holds::kNothing;
    Path path_;  // immutable after open
};

}  // namespace moat::kernel
