#include <fcntl.h>
#include <sys/file.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/inode_extras.h"
#include "kernel/syscalls/file_io.h"
#include "kernel/syscalls/handlers_fs.h"
#include "kernel/task/block.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

/// The locks of the inode behind `file`; files without one cannot be locked here.
Result<FileLocks*> locks_of(const File& file) {
    if (!file.path()) {
        return Errno(EINVAL);
    }
    return &file.path().dentry()->inode()->extras().locks();
}

/// fcntl(2): the range of `given`, which starts at l_whence and may be given backwards.
Result<FileLock> range_of(Task& task, File& file, const struct flock& given) {
    int64_t base = 0;
    switch (given.l_whence) {
        case SEEK_SET:
            break;
        case SEEK_CUR:
            base = TRY(file.seek(task, 0, SEEK_CUR));
            break;
        case SEEK_END:
            base = TRY(file.stat(task)).st_size;
            break;
        default:
            return Errno(EINVAL);
    }
    FileLock lock;
    if (__builtin_add_overflow(base, given.l_start, &lock.start)) {
        return Errno(EOVERFLOW);
    }
    if (lock.start < 0) {
        return Errno(EINVAL);
    }
    if (given.l_len > 0) {
        if (__builtin_add_overflow(lock.start, given.l_len - 1, &lock.end)) {
            return Errno(EOVERFLOW);
        }
    } else if (given.l_len < 0) {
        lock.end = lock.start - 1;
        if (__builtin_add_overflow(lock.start, given.l_len, &lock.start) || lock.start < 0) {
            return Errno(EINVAL);
        }
    }
    return lock;
}

/// A lock call that waits: tries again whenever a lock on the inode goes. `attempt` gives EAGAIN.
template <typename Attempt>
Result<int64_t> wait_for_lock(Task& task, RefPtr<File> file, FileLocks& locks, const void* owner,
                              Attempt attempt) {
    return block(task, {{&locks.waiters(), EPOLLIN}}, Deadline::never(),
                 [file = std::move(file), attempt, owner](Task&, Wake wake) -> Result<int64_t> {
                     const Status again = attempt();
                     if (!again.ok() && again.error() == EAGAIN) {
                         if (wake == Wake::kReady) {
                             return kBlocked;
                         }
                         forget_lock_wait(owner);
                         return kRestartSys;
                     }
                     forget_lock_wait(owner);
                     if (!again.ok()) {
                         return again.error();
                     }
                     return 0;
                 });
}

}  // namespace

Result<int64_t> fcntl_lock(Task& task, const RefPtr<File>& file, int command,
                           UserPtr<struct flock> user_lock) {
    const struct flock given = TRY(task.copy_in(user_lock.cast<const struct flock>()));
    const bool ofd = command == F_OFD_GETLK || command == F_OFD_SETLK || command == F_OFD_SETLKW;
    const bool query = command == F_GETLK || command == F_OFD_GETLK;
    const bool waits = command == F_SETLKW || command == F_OFD_SETLKW;
    if (ofd && given.l_pid != 0) {
        return Errno(EINVAL);
    }
    if (given.l_type != F_RDLCK && given.l_type != F_WRLCK && given.l_type != F_UNLCK) {
        return Errno(EINVAL);
    }
    FileLocks& locks = *TRY(locks_of(*file));
    FileLock wanted = TRY(range_of(task, *file, given));
    wanted.owner = ofd ? static_cast<const void*>(file.get()) : &task.fds();
    wanted.pid = ofd ? -1 : task.pid();
    wanted.exclusive = given.l_type == F_WRLCK;
    if (query) {
        if (given.l_type == F_UNLCK && !ofd) {
            return Errno(EINVAL);
        }
        struct flock answer = given;
        if (const auto held = locks.find_conflict(wanted)) {
            answer.l_type = held->exclusive ? F_WRLCK : F_RDLCK;
            answer.l_whence = SEEK_SET;
            answer.l_start = held->start;
            answer.l_len = held->end == INT64_MAX ? 0 : held->end - held->start + 1;
            answer.l_pid = held->pid;
        } else {
            answer.l_type = F_UNLCK;
        }
        TRY(task.copy_out(user_lock, answer));
        return 0;
    }
    if (given.l_type == F_UNLCK) {
        locks.release(wanted.owner, wanted.start, wanted.end);
        return 0;
    }
    if ((wanted.exclusive && !file->writable()) || (!wanted.exclusive && !file->readable())) {
        return Errno(EBADF);
    }
    if (ofd) {
        file->note_locked();
    }
    const auto attempt = [&locks, wanted, check = waits && !ofd]() {
        return locks.acquire(wanted, check);
    };
    const Status first = attempt();
    if (first.ok()) {
        return 0;
    }
    if (!(first.error() == EAGAIN) || !waits) {
        return first.error();
    }
    return wait_for_lock(task, file, locks, wanted.owner, attempt);
}

Result<int64_t> sys_flock(Task& task, Fd fd, int operation) {
    RefPtr<File> file = TRY(any_file(task, fd));
    const int kind = operation & ~LOCK_NB;
    if (kind != LOCK_SH && kind != LOCK_EX && kind != LOCK_UN) {
        return Errno(EINVAL);
    }
    FileLocks& locks = *TRY(locks_of(*file));
    if (kind == LOCK_UN) {
        locks.release_whole(file.get());
        return 0;
    }
    FileLock wanted;
    wanted.owner = file.get();
    wanted.pid = task.pid();
    wanted.exclusive = kind == LOCK_EX;
    file->note_locked();
    const auto attempt = [&locks, wanted]() { return locks.acquire_whole(wanted); };
    const Status first = attempt();
    if (first.ok()) {
        return 0;
    }
    if (!(first.error() == EAGAIN) || (operation & LOCK_NB) != 0) {
        return first.error();
    }
    return wait_for_lock(task, file, locks, wanted.owner, attempt);
}

}  // namespace moat::kernel
