#include "fsgofer/server/host.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

namespace moat::gofer {

namespace {

Timestamp timestamp_from(const statx_timestamp& t) { return {t.tv_sec, t.tv_nsec, 0}; }

}  // namespace

Result<ScopedFd> open_beneath(int directory, const char* path, uint64_t flags, uint32_t mode) {
    open_how how{};
    how.flags = flags | O_CLOEXEC;
    how.mode = mode;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    // EAGAIN: something was renamed in the middle of a lookup that had to know ("..", which we
    // never send); EINTR: a slow file system.
    for (int attempt = 0;; attempt++) {
        const long fd = ::syscall(SYS_openat2, directory, path, &how, sizeof how);
        if (fd >= 0) {
            return ScopedFd(static_cast<int>(fd));
        }
        if ((errno != EAGAIN && errno != EINTR) || attempt == 16) {
            return Errno(errno);
        }
    }
}

Result<Attributes> attributes_of(int directory, const char* name) {
    struct statx s;
    int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
    if (*name == '\0') {
        flags |= AT_EMPTY_PATH;
    }
    if (::statx(directory, name, flags, STATX_BASIC_STATS | STATX_BTIME, &s) != 0) {
        return Errno(errno);
    }
    Attributes a;
    a.ino = s.stx_ino;
    a.size = s.stx_size;
    a.blocks = s.stx_blocks;
    a.mode = s.stx_mode;
    a.nlink = s.stx_nlink;
    a.uid = s.stx_uid;
    a.gid = s.stx_gid;
    a.dev_major = s.stx_dev_major;
    a.dev_minor = s.stx_dev_minor;
    a.rdev_major = s.stx_rdev_major;
    a.rdev_minor = s.stx_rdev_minor;
    a.block_size = s.stx_blksize;
    a.access_time = timestamp_from(s.stx_atime);
    a.modify_time = timestamp_from(s.stx_mtime);
    a.change_time = timestamp_from(s.stx_ctime);
    if ((s.stx_mask & STATX_BTIME) != 0) {
        a.has_birth_time = 1;
        a.birth_time = timestamp_from(s.stx_btime);
    }
    return a;
}

Status chmod_fd(int fd, uint32_t mode) {
    if (::syscall(SYS_fchmodat2, fd, "", mode, AT_EMPTY_PATH) != 0) {
        return Errno(errno);
    }
    return {};
}

}  // namespace moat::gofer
