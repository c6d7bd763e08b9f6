#include <asm/ioctls.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/falloc.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>

#include "kernel/fs/dentry.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/regular_file.h"
#include "kernel/fs/tmpfs/tmpfs.h"
#include "kernel/fs/vfs.h"
#include "kernel/syscalls/file_io.h"
#include "kernel/syscalls/handlers_fs.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

CloseOnExec cloexec_of(uint32_t flags) {
    return (flags & O_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo;
}

/// Installs what was opened, once it may be: a FIFO waits for its other end.
Result<int64_t> install_opened(Task& task, RefPtr<File> file, uint32_t flags) {
    const auto attempt = [file, flags, &task]() -> Result<int64_t> {
        TRY(file->finish_open(task));
        return to_integer(
            TRY(task.fds().install(file, cloexec_of(flags), task.rlimit(RLIMIT_NOFILE))));
    };
    return attempt_or_block(task, {file->wait_queue(), ~0u}, true, Deadline::never(), kRestartSys,
                            attempt);
}

Result<int64_t> open_and_install(Task& task, DirFd dirfd, UserPath user_path, const OpenHow& how) {
    const std::string path = TRY(task.copy_in_path(user_path));
    return install_opened(task, TRY(open_at(task, dirfd, path, how)), how.flags);
}

/// Drops a descriptor's reference as close(2) does.
void release_file(Task& task, RefPtr<File> file) {
    if (!file->is_path_only()) {
        file->flush(task);
    }
}

}  // namespace

Result<int64_t> sys_open(Task& task, UserPath path, uint32_t flags, uint32_t mode) {
    return open_and_install(task, kCwd, path, TRY(OpenHow::from_open(flags, mode)));
}

Result<int64_t> sys_openat(Task& task, DirFd dirfd, UserPath path, uint32_t flags, uint32_t mode) {
    return open_and_install(task, dirfd, path, TRY(OpenHow::from_open(flags, mode)));
}

Result<int64_t> sys_openat2(Task& task, DirFd dirfd, UserPath path, GuestAddr how, size_t size) {
    if (size < sizeof(open_how)) {
        return Errno(EINVAL);
    }
    if (size > kPageSize) {
        return Errno(E2BIG);
    }
    // A longer struct than ours is fine as long as what we do not know is zero.
    std::vector<char> bytes(size);
    TRY(task.copy_in_bytes(bytes.data(), how, size));
    if (std::any_of(bytes.begin() + sizeof(open_how), bytes.end(), [](char c) { return c != 0; })) {
        return Errno(E2BIG);
    }
    open_how wanted;
    memcpy(&wanted, bytes.data(), sizeof wanted);
    return open_and_install(task, dirfd, path,
                            TRY(OpenHow::from_openat2(wanted.flags, wanted.mode, wanted.resolve)));
}

Result<int64_t> sys_creat(Task& task, UserPath path, uint32_t mode) {
    return sys_open(task, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

Status sys_close(Task& task, Fd fd) {
    release_file(task, TRY(task.fds().remove(fd)));
    return {};
}

Status sys_close_range(Task& task, uint32_t first, uint32_t last, uint32_t flags) {
    if (first > last ||
        (flags & ~static_cast<uint32_t>(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)) != 0) {
        return Errno(EINVAL);
    }
    if ((flags & CLOSE_RANGE_UNSHARE) != 0 && task.fds().ref_count() > 1) {
        return unsupported("close_range CLOSE_RANGE_UNSHARE of a shared table", EINVAL);
    }
    for (const Fd fd : task.fds().numbers()) {
        const auto number = static_cast<uint32_t>(to_integer(fd));
        if (number < first || number > last) {
            continue;
        }
        if ((flags & CLOSE_RANGE_CLOEXEC) != 0) {
            (void)task.fds().set_close_on_exec(fd, CloseOnExec::kYes);
        } else if (auto file = task.fds().remove(fd); file.ok()) {
            release_file(task, std::move(*file));
        }
    }
    return {};
}

Result<Fd> sys_dup(Task& task, Fd fd) {
    return task.fds().install(TRY(task.fds().get(fd)), CloseOnExec::kNo,
                              task.rlimit(RLIMIT_NOFILE));
}

Result<Fd> sys_dup2(Task& task, Fd old_fd, Fd new_fd) {
    RefPtr<File> file = TRY(task.fds().get(old_fd));
    if (old_fd == new_fd) {
        return new_fd;
    }
    RefPtr<File> replaced = TRY(
        task.fds().replace(new_fd, std::move(file), CloseOnExec::kNo, task.rlimit(RLIMIT_NOFILE)));
    if (replaced) {
        release_file(task, std::move(replaced));
    }
    return new_fd;
}

Result<Fd> sys_dup3(Task& task, Fd old_fd, Fd new_fd, uint32_t flags) {
    if ((flags & ~static_cast<uint32_t>(O_CLOEXEC)) != 0 || old_fd == new_fd) {
        return Errno(EINVAL);
    }
    RefPtr<File> file = TRY(task.fds().get(old_fd));
    RefPtr<File> replaced = TRY(
        task.fds().replace(new_fd, std::move(file), cloexec_of(flags), task.rlimit(RLIMIT_NOFILE)));
    if (replaced) {
        release_file(task, std::move(replaced));
    }
    return new_fd;
}

Result<int64_t> sys_ioctl(Task& task, Fd fd, uint32_t command, uint64_t argument) {
    RefPtr<File> file = TRY(any_file(task, fd));
    switch (command) {
        case FIOCLEX:
            TRY(task.fds().set_close_on_exec(fd, CloseOnExec::kYes));
            return 0;
        case FIONCLEX:
            TRY(task.fds().set_close_on_exec(fd, CloseOnExec::kNo));
            return 0;
        case FIONBIO: {
            const int on = TRY(task.copy_in(UserPtr<const int>(argument)));
            file->set_flags(on != 0 ? file->flags() | O_NONBLOCK
                                    : file->flags() & ~static_cast<uint32_t>(O_NONBLOCK));
            return 0;
        }
        case FIOASYNC: {
            const int on = TRY(task.copy_in(UserPtr<const int>(argument)));
            if (on != 0) {
                // Taken without effect, as F_SETFL takes O_ASYNC: nginx starts no worker without it
                // and never needs the signal.
                (void)unsupported("ioctl FIOASYNC", ENOTTY);
            }
            return 0;
        }
        case FIONREAD:
            if (file->path() && file->path().dentry()->inode()->is_regular()) {
                const int64_t position = TRY(file->seek(task, 0, SEEK_CUR));
                const int64_t left = TRY(file->stat(task)).st_size - position;
                TRY(task.copy_out(UserPtr<int>(argument),
                                  static_cast<int>(std::clamp<int64_t>(left, 0, INT32_MAX))));
                return 0;
            }
            break;
        default:
            break;
    }
    return file->ioctl(task, command, argument);
}

Result<Fd> sys_memfd_create(Task& task, UserPath user_name, uint32_t flags) {
    constexpr uint32_t kNoExecSeal = 8;
    constexpr uint32_t kExec = 0x10;
    if ((flags & MFD_HUGETLB) != 0) {
        return unsupported("memfd_create MFD_HUGETLB", EINVAL);
    }
    if ((flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | kNoExecSeal | kExec)) != 0 ||
        (flags & (kNoExecSeal | kExec)) == (kNoExecSeal | kExec)) {
        return Errno(EINVAL);
    }
    // 249 bytes and the NUL (memfd_create(2)).
    const std::string name = TRY(task.copy_in_string(user_name, 250, Errno(EINVAL)));
    RefPtr<File> file = TRY(make_memfd(task, name, flags));
    return task.fds().install(std::move(file),
                              (flags & MFD_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo,
                              task.rlimit(RLIMIT_NOFILE));
}

Status sys_truncate(Task& task, UserPath user_path, int64_t size) {
    const std::string path = TRY(task.copy_in_path(user_path));
    if (size < 0) {
        return Errno(EINVAL);
    }
    return truncate_path(task, TRY(resolve(task, kCwd, path)), size);
}

Status sys_ftruncate(Task& task, Fd fd, int64_t size) {
    if (size < 0) {
        return Errno(EINVAL);
    }
    RefPtr<File> file = TRY(any_file(task, fd));
    if (!file->writable()) {
        return Errno(EINVAL);
    }
    TRY(limit_file_size(task, size));
    TRY(file->truncate(task, size));
    strip_privilege(task, *file);
    return {};
}

Status sys_fallocate(Task& task, Fd fd, int mode, int64_t offset, int64_t size) {
    if (offset < 0 || size <= 0) {
        return Errno(EINVAL);
    }
    RefPtr<File> file = TRY(any_file(task, fd));
    if (!file->writable()) {
        return Errno(EBADF);
    }
    if (file->is_pipe()) {
        return Errno(ESPIPE);
    }
    int64_t end;
    if (__builtin_add_overflow(offset, size, &end)) {
        return Errno(EFBIG);
    }
    if ((mode & FALLOC_FL_KEEP_SIZE) == 0) {
        TRY(limit_file_size(task, end));
    }
    return file->allocate(task, mode, offset, size);
}

Status sys_fsync(Task& task, Fd fd) { return TRY(any_file(task, fd))->sync(task, false); }
Status sys_fdatasync(Task& task, Fd fd) { return TRY(any_file(task, fd))->sync(task, true); }

Status sys_sync(Task& task) {
    for (const RefPtr<Mount>& mount : task.fs().mounts_ref()->mounts()) {
        (void)mount->file_system().sync(task);
    }
    return {};
}

Status sys_syncfs(Task& task, Fd fd) {
    RefPtr<File> file = TRY(any_file(task, fd));
    return file->path() ? file->path().mount()->file_system().sync(task) : Status();
}

Status sys_sync_file_range(Task& task, Fd fd, int64_t offset, int64_t size, uint32_t flags) {
    if ((flags & ~7u) != 0 || offset < 0 || size < 0) {
        return Errno(EINVAL);
    }
    RefPtr<File> file = TRY(any_file(task, fd));
    if (file->is_pipe()) {
        return Errno(ESPIPE);
    }
    return file->sync(task, true);
}

Status sys_fadvise64(Task& task, Fd fd, int64_t, int64_t size, int advice) {
    RefPtr<File> file = TRY(any_file(task, fd));
    if (file->is_pipe()) {
        return Errno(ESPIPE);
    }
    // Advice only: the host's own read-ahead serves us well.
    return advice < POSIX_FADV_NORMAL || advice > POSIX_FADV_NOREUSE || size < 0
               ? Status(Errno(EINVAL))
               : Status();
}

Status sys_readahead(Task& task, Fd fd, int64_t, size_t) {
    RefPtr<File> file = TRY(readable_file(task, fd));
    return file->path() && file->path().dentry()->inode()->is_regular() ? Status()
                                                                        : Status(Errno(EINVAL));
}

}  // namespace moat::kernel
