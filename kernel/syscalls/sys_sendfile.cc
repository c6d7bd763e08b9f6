// Calls that move bytes from one file to another: through a buffer of the sentry, never through the
// guest. A pipe as the source is looked into first and emptied by what the other side took, so
// nothing is lost when that is less.

#include <fcntl.h>

#include <algorithm>
#include <vector>

#include "kernel/fs/dentry.h"
#include "kernel/fs/pipe/pipe.h"
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

constexpr size_t kChunk = 64 << 10;
constexpr uint32_t kSpliceFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT;

bool is_seekable_file(const File& file) {
    return file.path() && file.path().dentry()->inode()->is_regular();
}

/// One side of a copy.
struct Side {
    RefPtr<File> file;
    int64_t offset = kOwnPosition;  ///< or where to read or write next
    UserPtr<int64_t>
        user_offset;  ///< told the new offset at the end; null: the file's own position
};

/// A copy under way, owned by the call's continuation.
struct Copy {
    Side in, out;
    size_t left;
    size_t done = 0;
    bool whole =
        true;  ///< goes on until all is moved (sendfile), not only until something is (splice)
    bool keep = false;           ///< tee(2): the source keeps its bytes
    bool waits_for_out = false;  ///< what the last EAGAIN was for

    /// Moves one chunk. 0: the source has ended.
    Result<size_t> step(Task& task) {
        thread_local std::vector<char> buffer(kChunk);
        waits_for_out = false;
        size_t n = std::min(left, kChunk);
        if (out.file->is_pipe() && !in.file->is_pipe() && !is_seekable_file(*in.file)) {
            // A source that cannot be looked into is only read for what surely fits.
            Pipe& pipe = static_cast<PipeFile&>(*out.file).pipe();
            const size_t room = pipe.capacity() - std::min(pipe.capacity(), pipe.size());
            if (room == 0) {
                waits_for_out = true;
                return Errno(EAGAIN);
            }
            n = std::min(n, room);
        }
        size_t got;
        if (in.file->is_pipe()) {
            got = TRY(in.file->peek(task, buffer.data(), n, keep ? done : 0));
        } else {
            IoBuffer to = IoBuffer::sentry(buffer.data(), n);
            got = TRY(in.offset == kOwnPosition ? in.file->read(task, to)
                                                : in.file->pread(task, to, in.offset));
        }
        if (got == 0) {
            return 0;
        }
        IoBuffer from = IoBuffer::sentry(static_cast<const void*>(buffer.data()), got);
        const auto put = out.offset == kOwnPosition ? out.file->write(task, from)
                                                    : out.file->pwrite(task, from, out.offset);
        if (!put.ok()) {
            waits_for_out = put.error() == EAGAIN;
            return put.error();
        }
        if (in.file->is_pipe() && !keep) {
            thread_local std::vector<char> taken(kChunk);
            IoBuffer sink = IoBuffer::sentry(taken.data(), *put);
            TRY(in.file->read(task, sink));
        }
        in.offset += in.offset == kOwnPosition ? 0 : static_cast<int64_t>(*put);
        out.offset += out.offset == kOwnPosition ? 0 : static_cast<int64_t>(*put);
        done += *put;
        left -= *put;
        return *put;
    }

    /// EAGAIN: has to wait.
    Result<int64_t> attempt(Task& task) {
        while (left != 0) {
            const auto moved = step(task);
            if (!moved.ok()) {
                if (moved.error() == EPIPE && out.file->raises_sigpipe()) {
                    (void)send_signal(task, SignalInfo::from_kernel(SIGPIPE));
                }
                if (moved.error() == EAGAIN && (done == 0 || (whole && !nonblocking()))) {
                    return Errno(EAGAIN);
                }
                return done != 0 ? finish(task) : moved.error();
            }
            if (*moved == 0 || (!whole && (in.file->is_pipe() || out.file->is_pipe()) &&
                                !is_seekable_file(*in.file) && done != 0)) {
                break;
            }
        }
        return finish(task);
    }

    bool nonblocking() const { return out.file->nonblocking(); }

    Result<int64_t> finish(Task& task) {
        for (Side* side : {&in, &out}) {
            if (side->offset == kOwnPosition) {
                continue;
            }
            if (side->user_offset) {
                TRY(task.copy_out(side->user_offset, side->offset));
            } else if (done != 0) {
                TRY(side->file->seek(task, side->offset, SEEK_SET));
            }
        }
        if (done != 0) {
            strip_privilege(task, *out.file);
        }
        return static_cast<int64_t>(done);
    }
};

Result<int64_t> run(Task& task, Copy copy, MayWait may_wait) {
    const auto first = copy.attempt(task);
    if (first.ok() || !(first.error() == EAGAIN) || may_wait == MayWait::kNo) {
        return first;
    }
    std::vector<WaitSource> sources;
    if (WaitQueue* queue = copy.out.file->wait_queue()) {
        sources.push_back({queue, EPOLLOUT | EPOLLHUP | EPOLLERR});
    }
    if (WaitQueue* queue = copy.in.file->wait_queue()) {
        sources.push_back({queue, EPOLLIN | EPOLLHUP | EPOLLERR});
    }
    if (sources.empty()) {
        return first;
    }
    return block(task, std::move(sources), Deadline::never(),
                 [copy = std::move(copy)](Task& waiting, Wake wake) mutable -> Result<int64_t> {
                     const auto again = copy.attempt(waiting);
                     if (again.ok() || !(again.error() == EAGAIN)) {
                         return again;
                     }
                     if (wake == Wake::kReady) {
                         return kBlocked;
                     }
                     return copy.done != 0 ? copy.finish(waiting) : kRestartSys;
                 });
}

/// The side of a file at `user_offset`, or at its own position when that is null.
Result<Side> side_at(Task& task, RefPtr<File> file, UserPtr<int64_t> user_offset) {
    Side side{std::move(file), kOwnPosition, user_offset};
    if (user_offset) {
        side.offset = TRY(task.copy_in(user_offset));
        if (side.offset < 0) {
            return Errno(EINVAL);
        }
    }
    return side;
}

}  // namespace

Result<int64_t> sys_sendfile(Task& task, Fd out, Fd in, UserPtr<int64_t> offset, size_t count) {
    Copy copy;
    copy.in = TRY(side_at(task, TRY(readable_file(task, in)), offset));
    copy.out.file = TRY(writable_file(task, out));
    if (copy.in.file->is_pipe() && offset) {
        return Errno(ESPIPE);
    }
    if ((copy.out.file->flags() & O_APPEND) != 0) {
        return Errno(EINVAL);
    }
    if (copy.in.offset == kOwnPosition && !copy.in.file->is_pipe()) {
        const auto position = copy.in.file->seek(task, 0, SEEK_CUR);
        if (position.ok()) {
            copy.in.offset = *position;
        } else {
            // Linux: fs/splice.c:splice_direct_to_actor: "we don't want to randomly drop data".
            // What a stream gave and the other side did not take could not be put back.
            return Errno(EINVAL);
        }
    }
    copy.left = std::min(count, kMaxTransfer);
    const MayWait may_wait = copy.out.file->nonblocking() ? MayWait::kNo : MayWait::kYes;
    return run(task, std::move(copy), may_wait);
}

Result<int64_t> sys_splice(Task& task, Fd in, UserPtr<int64_t> in_offset, Fd out,
                           UserPtr<int64_t> out_offset, size_t count, uint32_t flags) {
    if ((flags & ~kSpliceFlags) != 0) {
        return Errno(EINVAL);
    }
    RefPtr<File> source = TRY(readable_file(task, in));
    RefPtr<File> target = TRY(writable_file(task, out));
    if (count == 0) {
        return 0;
    }
    if (!source->is_pipe() && !target->is_pipe()) {
        return Errno(EINVAL);
    }
    if ((source->is_pipe() && in_offset) || (target->is_pipe() && out_offset)) {
        return Errno(ESPIPE);
    }
    if ((target->flags() & O_APPEND) != 0 && !target->is_pipe()) {
        return Errno(EINVAL);
    }
    if (source->is_pipe() && target->is_pipe() &&
        &static_cast<PipeFile&>(*source).pipe() == &static_cast<PipeFile&>(*target).pipe()) {
        return Errno(EINVAL);
    }
    const bool waits =
        (flags & SPLICE_F_NONBLOCK) == 0 && !source->nonblocking() && !target->nonblocking();
    Copy copy;
    copy.in = TRY(side_at(task, std::move(source), in_offset));
    copy.out = TRY(side_at(task, std::move(target), out_offset));
    copy.left = std::min(count, kMaxTransfer);
    copy.whole = false;
    if (copy.in.offset == kOwnPosition && is_seekable_file(*copy.in.file)) {
        copy.in.offset = TRY(copy.in.file->seek(task, 0, SEEK_CUR));
    }
    return run(task, std::move(copy), waits ? MayWait::kYes : MayWait::kNo);
}

Result<int64_t> sys_tee(Task& task, Fd in, Fd out, size_t count, uint32_t flags) {
    if ((flags & ~kSpliceFlags) != 0) {
        return Errno(EINVAL);
    }
    Copy copy;
    copy.in.file = TRY(readable_file(task, in));
    copy.out.file = TRY(writable_file(task, out));
    if (!copy.in.file->is_pipe() || !copy.out.file->is_pipe() ||
        &static_cast<PipeFile&>(*copy.in.file).pipe() ==
            &static_cast<PipeFile&>(*copy.out.file).pipe()) {
        return Errno(EINVAL);
    }
    copy.left = std::min(count, kMaxTransfer);
    copy.whole = false;
    copy.keep = true;
    return run(task, std::move(copy),
               (flags & SPLICE_F_NONBLOCK) != 0 ? MayWait::kNo : MayWait::kYes);
}

Result<int64_t> sys_vmsplice(Task& task, Fd fd, UserPtr<const iovec> pieces, size_t count,
                             uint32_t flags) {
    if ((flags & ~kSpliceFlags) != 0) {
        return Errno(EINVAL);
    }
    const RefPtr<File> file = TRY(any_file(task, fd));
    if (!file->is_pipe()) {
        return Errno(EBADF);
    }
    IoBuffer buffer = TRY(IoBuffer::guest_iovec(task.mm_ref(), pieces, count));
    const MayWait may_wait = (flags & SPLICE_F_NONBLOCK) != 0 ? MayWait::kNo : MayWait::kYes;
    return file->writable() ? write_file(task, file, std::move(buffer), kOwnPosition, may_wait)
                            : read_file(task, file, std::move(buffer), kOwnPosition, may_wait);
}

Result<int64_t> sys_copy_file_range(Task& task, Fd in, UserPtr<int64_t> in_offset, Fd out,
                                    UserPtr<int64_t> out_offset, size_t count, uint32_t flags) {
    if (flags != 0) {
        return Errno(EINVAL);
    }
    Copy copy;
    copy.in = TRY(side_at(task, TRY(readable_file(task, in)), in_offset));
    copy.out = TRY(side_at(task, TRY(writable_file(task, out)), out_offset));
    for (Side* side : {&copy.in, &copy.out}) {
        if (!is_seekable_file(*side->file)) {
            const bool directory =
                side->file->path() && side->file->path().dentry()->inode()->is_directory();
            return Errno(directory ? EISDIR : EINVAL);
        }
        if (side->offset == kOwnPosition) {
            side->offset = TRY(side->file->seek(task, 0, SEEK_CUR));
        }
    }
    if ((copy.out.file->flags() & O_APPEND) != 0) {
        return Errno(EBADF);
    }
    copy.left = std::min(count, kMaxTransfer);
    const auto length = static_cast<int64_t>(copy.left);
    if (copy.in.file->path().dentry()->inode() == copy.out.file->path().dentry()->inode() &&
        copy.in.offset < copy.out.offset + length && copy.out.offset < copy.in.offset + length) {
        return Errno(EINVAL);
    }
    return run(task, std::move(copy), MayWait::kNo);
}

}  // namespace moat::kernel
