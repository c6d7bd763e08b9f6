#include <fcntl.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/uio.h>

#include <algorithm>

#include "kernel/fs/inotify/inotify.h"
#include "kernel/fs/regular_file.h"
#include "kernel/fs/vfs.h"
#include "kernel/mm/address_space.h"
#include "kernel/syscalls/file_io.h"
#include "kernel/syscalls/handlers_fs.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/block.h"
#include "kernel/task/task.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

namespace {

/// Linux: access_ok(): a range that leaves user space is refused before anything is moved.
Status check_range(GuestAddr address, size_t count) {
    constexpr uint64_t kUserEnd = 0x7ffffffff000;
    const uint64_t start = to_integer(address);
    return start > kUserEnd || count > kUserEnd - start ? Status(Errno(EFAULT)) : Status();
}

/// Linux: rw_verify_area(): a position that overflows.
Status check_position(int64_t offset, size_t count) {
    if (offset < 0) {
        return Errno(EINVAL);
    }
    int64_t end = 0;
    return __builtin_add_overflow(offset, static_cast<int64_t>(std::min(count, kMaxTransfer)), &end)
               ? Status(Errno(EOVERFLOW))
               : Status();
}

}  // namespace

Result<RefPtr<File>> any_file(Task& task, Fd fd) {
    RefPtr<File> file = TRY(task.fds().get(fd));
    if (file->is_path_only()) {
        return Errno(EBADF);
    }
    return file;
}

Result<RefPtr<File>> readable_file(Task& task, Fd fd) {
    RefPtr<File> file = TRY(any_file(task, fd));
    if (!file->readable()) {
        return Errno(EBADF);
    }
    return file;
}

Result<RefPtr<File>> writable_file(Task& task, Fd fd) {
    RefPtr<File> file = TRY(any_file(task, fd));
    if (!file->writable()) {
        return Errno(EBADF);
    }
    return file;
}

namespace {

/// A read under way: what its continuation owns.
struct Read {
    RefPtr<File> file;
    IoBuffer buffer;
    int64_t offset;

    Result<int64_t> attempt(Task& task) {
        const auto n =
            offset == kOwnPosition ? file->read(task, buffer) : file->pread(task, buffer, offset);
        if (!n.ok()) {
            return n.error();
        }
        if (*n != 0) {
            notify_file(file->path(), IN_ACCESS);
        }
        return static_cast<int64_t>(*n);
    }
};

/// A write under way; the buffer's cursor says how far it got.
struct Write {
    RefPtr<File> file;
    IoBuffer buffer;
    int64_t offset;
    RegularFile* at_end = nullptr;  // `file`, for RWF_APPEND

    /// EAGAIN: not all is written, wait.
    Result<int64_t> attempt(Task& task) {
        for (;;) {
            const auto done = static_cast<int64_t>(buffer.transferred());
            const auto n =
                at_end != nullptr
                    ? at_end->write_at_end(task, buffer,
                                           offset == kOwnPosition ? RegularFile::Position::kMoves
                                                                  : RegularFile::Position::kStays)
                : offset == kOwnPosition ? file->write(task, buffer)
                                         : file->pwrite(task, buffer, offset + done);
            if (!n.ok()) {
                if (n.error() == EPIPE && file->raises_sigpipe()) {
                    (void)send_signal(task, SignalInfo::from_kernel(SIGPIPE));
                }
                if (n.error() == EAGAIN) {
                    return Errno(EAGAIN);
                }
                return buffer.transferred() != 0 ? finish(task) : n.error();
            }
            if (buffer.empty() || *n == 0) {
                return finish(task);
            }
        }
    }

    Result<int64_t> finish(Task& task) {
        if (buffer.transferred() != 0) {
            strip_privilege(task, *file);
            notify_file(file->path(), IN_MODIFY);
        }
        return static_cast<int64_t>(buffer.transferred());
    }
};

Deadline deadline_of(int64_t timeout_ns) {
    return timeout_ns == INT64_MAX ? Deadline::never() : Deadline::after(timeout_ns);
}

/// Linux: sock_intr_errno(): a call with a timeout is not restarted, it would wait anew.
Errno interrupted(int64_t timeout_ns) {
    return timeout_ns == INT64_MAX ? kRestartSys : Errno(EINTR);
}

IoBuffer guest_buffer(Task& task, GuestAddr address, size_t count) {
    return IoBuffer::guest(task.mm_ref(), address, std::min(count, kMaxTransfer));
}

}  // namespace

Result<int64_t> read_file(Task& task, RefPtr<File> file, IoBuffer buffer, int64_t offset,
                          MayWait may_wait) {
    const bool waits = may_wait == MayWait::kYes && !file->nonblocking();
    const int64_t timeout = file->read_timeout_ns();
    const WaitSource source{file->wait_queue(), EPOLLIN | EPOLLHUP | EPOLLRDHUP | EPOLLERR};
    return attempt_or_block(task, source, waits, deadline_of(timeout), interrupted(timeout),
                            [read = Read{std::move(file), std::move(buffer), offset},
                             &task]() mutable { return read.attempt(task); });
}

Result<int64_t> write_file(Task& task, RefPtr<File> file, IoBuffer buffer, int64_t offset,
                           MayWait may_wait) {
    const bool waits = may_wait == MayWait::kYes && !file->nonblocking();
    const int64_t timeout = file->write_timeout_ns();
    WaitQueue* const queue = file->wait_queue();
    Write write{std::move(file), std::move(buffer), offset};
    const auto first = write.attempt(task);
    if (first.ok() || !(first.error() == EAGAIN)) {
        return first;
    }
    if (!waits || queue == nullptr) {
        return write.buffer.transferred() != 0 ? write.finish(task) : first;
    }
    return block(
        task, {{queue, EPOLLOUT | EPOLLHUP | EPOLLERR}}, deadline_of(timeout),
        [write = std::move(write), timeout](Task& waiting, Wake wake) mutable -> Result<int64_t> {
            const auto again = write.attempt(waiting);
            if (again.ok() || !(again.error() == EAGAIN)) {
                return again;
            }
            if (wake == Wake::kReady) {
                return kBlocked;
            }
            if (write.buffer.transferred() != 0) {
                return write.finish(waiting);
            }
            return wake == Wake::kTimeout ? Errno(EAGAIN) : interrupted(timeout);
        });
}

Result<int64_t> sys_read(Task& task, Fd fd, GuestAddr buffer, size_t count) {
    RefPtr<File> file = TRY(readable_file(task, fd));
    TRY(check_range(buffer, count));
    return read_file(task, std::move(file), guest_buffer(task, buffer, count));
}

Result<int64_t> sys_write(Task& task, Fd fd, GuestAddr buffer, size_t count) {
    RefPtr<File> file = TRY(writable_file(task, fd));
    TRY(check_range(buffer, count));
    return write_file(task, std::move(file), guest_buffer(task, buffer, count));
}

Result<int64_t> sys_pread64(Task& task, Fd fd, GuestAddr buffer, size_t count, int64_t offset) {
    TRY(check_position(offset, 0));
    RefPtr<File> file = TRY(readable_file(task, fd));
    TRY(check_range(buffer, count));
    TRY(check_position(offset, count));
    return read_file(task, std::move(file), guest_buffer(task, buffer, count), offset);
}

Result<int64_t> sys_pwrite64(Task& task, Fd fd, GuestAddr buffer, size_t count, int64_t offset) {
    TRY(check_position(offset, 0));
    RefPtr<File> file = TRY(writable_file(task, fd));
    TRY(check_range(buffer, count));
    TRY(check_position(offset, count));
    return write_file(task, std::move(file), guest_buffer(task, buffer, count), offset);
}

Result<int64_t> sys_readv(Task& task, Fd fd, UserPtr<const iovec> pieces, uint64_t count) {
    RefPtr<File> file = TRY(readable_file(task, fd));
    return read_file(task, std::move(file),
                     TRY(IoBuffer::guest_iovec(task.mm_ref(), pieces, count)));
}

Result<int64_t> sys_writev(Task& task, Fd fd, UserPtr<const iovec> pieces, uint64_t count) {
    RefPtr<File> file = TRY(writable_file(task, fd));
    return write_file(task, std::move(file),
                      TRY(IoBuffer::guest_iovec(task.mm_ref(), pieces, count)));
}

Result<int64_t> sys_preadv(Task& task, Fd fd, UserPtr<const iovec> pieces, uint64_t count,
                           int64_t offset) {
    if (offset < 0) {
        return Errno(EINVAL);
    }
    RefPtr<File> file = TRY(readable_file(task, fd));
    return read_file(task, std::move(file),
                     TRY(IoBuffer::guest_iovec(task.mm_ref(), pieces, count)), offset);
}

Result<int64_t> sys_pwritev(Task& task, Fd fd, UserPtr<const iovec> pieces, uint64_t count,
                            int64_t offset) {
    if (offset < 0) {
        return Errno(EINVAL);
    }
    RefPtr<File> file = TRY(writable_file(task, fd));
    return write_file(task, std::move(file),
                      TRY(IoBuffer::guest_iovec(task.mm_ref(), pieces, count)), offset);
}

Result<int64_t> sys_preadv2(Task& task, Fd fd, UserPtr<const iovec> pieces, uint64_t count,
                            int64_t offset, uint64_t, uint32_t flags) {
    if ((flags & ~static_cast<uint32_t>(RWF_HIPRI | RWF_NOWAIT | RWF_DSYNC | RWF_SYNC)) != 0) {
        return unsupported("preadv2 flags", EOPNOTSUPP);
    }
    if (offset < -1) {
        return Errno(EINVAL);
    }
    RefPtr<File> file = TRY(readable_file(task, fd));
    return read_file(task, std::move(file),
                     TRY(IoBuffer::guest_iovec(task.mm_ref(), pieces, count)), offset,
                     (flags & RWF_NOWAIT) != 0 ? MayWait::kNo : MayWait::kYes);
}

Result<int64_t> sys_pwritev2(Task& task, Fd fd, UserPtr<const iovec> pieces, uint64_t count,
                             int64_t offset, uint64_t, uint32_t flags) {
    if ((flags &
         ~static_cast<uint32_t>(RWF_HIPRI | RWF_NOWAIT | RWF_DSYNC | RWF_SYNC | RWF_APPEND)) != 0) {
        return unsupported("pwritev2 flags", EOPNOTSUPP);
    }
    if (offset < -1) {
        return Errno(EINVAL);
    }
    RefPtr<File> file = TRY(writable_file(task, fd));
    IoBuffer buffer = TRY(IoBuffer::guest_iovec(task.mm_ref(), pieces, count));
    auto* const regular =
        (flags & RWF_APPEND) != 0 ? dynamic_cast<RegularFile*>(file.get()) : nullptr;
    Result<int64_t> written = 0;
    if (regular != nullptr) {
        written = Write{file, std::move(buffer), offset, regular}.attempt(task);  // never waits
    } else {
        written = write_file(task, file, std::move(buffer), offset,
                             (flags & RWF_NOWAIT) != 0 ? MayWait::kNo : MayWait::kYes);
    }
    if (written.ok() && (flags & (RWF_DSYNC | RWF_SYNC)) != 0) {
        TRY(file->sync(task, (flags & RWF_SYNC) == 0));
    }
    return written;
}

Result<int64_t> sys_lseek(Task& task, Fd fd, int64_t offset, int whence) {
    RefPtr<File> file = TRY(any_file(task, fd));
    if (whence < SEEK_SET || whence > SEEK_HOLE) {
        return Errno(EINVAL);
    }
    return file->seek(task, offset, whence);
}

}  // namespace moat::kernel
