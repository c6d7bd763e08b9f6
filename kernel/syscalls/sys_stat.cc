#include <fcntl.h>
#include <linux/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include <cstring>

#include "kernel/fs/dentry.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/vfs.h"
#include "kernel/syscalls/file_io.h"
#include "kernel/syscalls/handlers_fs.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

/// As the guest sees it: owners that its user namespace does not map are nobody
/// (user_namespaces(7): overflow ids).
struct stat shown_to(Task& task, struct stat st) {
    constexpr uint32_t kOverflowId = 65534;
    st.st_uid = task.credentials()->has_uid(st.st_uid) ? st.st_uid : kOverflowId;
    st.st_gid = task.credentials()->has_gid(st.st_gid) ? st.st_gid : kOverflowId;
    return st;
}

Status stat_to_guest(Task& task, DirFd dirfd, UserPath user_path, UserPtr<struct stat> out,
                     int flags) {
    const std::string path = TRY(task.copy_in_path(user_path));
    return task.copy_out(out, shown_to(task, TRY(stat_at(task, dirfd, path, flags))));
}

/// The path of a call that takes (dirfd, path, flags) with AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH.
Result<Path> resolve_at(Task& task, DirFd dirfd, UserPath user_path, int flags) {
    if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) {
        return Errno(EINVAL);
    }
    const std::string path = TRY(task.copy_in_path(user_path));
    return resolve(task, dirfd, path,
                   ((flags & AT_SYMLINK_NOFOLLOW) != 0 ? kNoFollow : 0u) |
                       ((flags & AT_EMPTY_PATH) != 0 ? kAllowEmpty : 0u));
}

/// chown(2). EINVAL: an id that the container's user namespace does not map.
Status set_owner(Task& task, const Path& path, uint32_t uid, uint32_t gid) {
    if ((uid != UINT32_MAX && !task.credentials()->has_uid(uid)) ||
        (gid != UINT32_MAX && !task.credentials()->has_gid(gid))) {
        return Errno(EINVAL);
    }
    return change_owner(task, path, uid, gid);
}

/// The path of a descriptor; files without one (pipes, sockets) have an owner and mode that nobody
/// can change here.
Result<Path> path_of(Task& task, Fd fd) {
    RefPtr<File> file = TRY(any_file(task, fd));
    if (!file->path()) {
        return Errno(EPERM);
    }
    return file->path();
}

statx_timestamp to_statx_time(const timespec& t) {
    statx_timestamp out{};
    out.tv_sec = t.tv_sec;
    out.tv_nsec = static_cast<uint32_t>(t.tv_nsec);
    return out;
}

struct statx to_statx(const struct stat& st) {
    struct statx x {};
    x.stx_mask = STATX_BASIC_STATS;
    x.stx_blksize = static_cast<uint32_t>(st.st_blksize);
    x.stx_nlink = static_cast<uint32_t>(st.st_nlink);
    x.stx_uid = st.st_uid;
    x.stx_gid = st.st_gid;
    x.stx_mode = static_cast<uint16_t>(st.st_mode);
    x.stx_ino = st.st_ino;
    x.stx_size = static_cast<uint64_t>(st.st_size);
    x.stx_blocks = static_cast<uint64_t>(st.st_blocks);
    x.stx_atime = to_statx_time(st.st_atim);
    x.stx_mtime = to_statx_time(st.st_mtim);
    x.stx_ctime = to_statx_time(st.st_ctim);
    x.stx_rdev_major = major(st.st_rdev);
    x.stx_rdev_minor = minor(st.st_rdev);
    x.stx_dev_major = major(st.st_dev);
    x.stx_dev_minor = minor(st.st_dev);
    return x;
}

struct statfs with_mount(struct statfs st, const Mount& mount) {
    constexpr uint64_t kValid = 0x20;  // ST_VALID
    uint64_t flags = kValid;
    flags |= mount.read_only() ? ST_RDONLY : 0;
    flags |= mount.no_suid() ? ST_NOSUID : 0;
    flags |= mount.no_dev() ? ST_NODEV : 0;
    flags |= mount.no_exec() ? ST_NOEXEC : 0;
    flags |= (mount.flags() & MS_NOATIME) != 0 ? ST_NOATIME : ST_RELATIME;
    st.f_flags = static_cast<long>(flags);
    const uint64_t device = mount.file_system().device();
    memcpy(&st.f_fsid, &device, sizeof device);
    return st;
}

Result<timespec> to_timespec(const timeval& t) {
    if (t.tv_usec < 0 || t.tv_usec > 999'999) {
        return Errno(EINVAL);
    }
    return timespec{t.tv_sec, t.tv_usec * 1000};
}

Status set_times_us(Task& task, DirFd dirfd, UserPath user_path,
                    UserPtr<const timeval> user_times) {
    timespec times[2];
    if (user_times) {
        const auto given = TRY(task.copy_in_array(user_times, 2));
        times[0] = TRY(to_timespec(given[0]));
        times[1] = TRY(to_timespec(given[1]));
    }
    const std::string path = TRY(task.copy_in_path(user_path));
    return change_times(task, TRY(resolve(task, dirfd, path)), user_times ? times : nullptr);
}

}  // namespace

Status sys_stat(Task& task, UserPath path, UserPtr<struct stat> out) {
    return stat_to_guest(task, kCwd, path, out, 0);
}

Status sys_lstat(Task& task, UserPath path, UserPtr<struct stat> out) {
    return stat_to_guest(task, kCwd, path, out, AT_SYMLINK_NOFOLLOW);
}

Status sys_fstat(Task& task, Fd fd, UserPtr<struct stat> out) {
    RefPtr<File> file = TRY(task.fds().get(fd));  // fine for O_PATH
    return task.copy_out(out, shown_to(task, TRY(file->stat(task))));
}

Status sys_newfstatat(Task& task, DirFd dirfd, UserPath path, UserPtr<struct stat> out, int flags) {
    if ((flags & AT_EMPTY_PATH) != 0 && path.is_null()) {
        return task.copy_out(
            out, shown_to(task, TRY(stat_at(task, dirfd, "", flags))));  // Linux from 6.11 on
    }
    return stat_to_guest(task, dirfd, path, out, flags);
}

Status sys_statx(Task& task, DirFd dirfd, UserPath user_path, int flags, uint32_t mask,
                 UserPtr<struct statx> out) {
    constexpr uint32_t kReserved = 0x80000000;  // STATX__RESERVED
    if ((mask & kReserved) != 0 || (flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE ||
        (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE)) !=
            0) {
        return Errno(EINVAL);
    }
    const std::string path = user_path.is_null() && (flags & AT_EMPTY_PATH) != 0
                                 ? ""
                                 : TRY(task.copy_in_path(user_path));
    Resolved found;
    if (path.empty() && (flags & AT_EMPTY_PATH) != 0 && !(dirfd == kCwd)) {
        RefPtr<File> file = TRY(task.fds().get(Fd{static_cast<int32_t>(dirfd)}));
        if (file->path()) {
            found.path = file->path();
        } else {
            found.anonymous = std::move(file);
        }
    } else {
        found = TRY(resolve_any(task, dirfd, path,
                                ((flags & AT_SYMLINK_NOFOLLOW) != 0 ? kNoFollow : 0u) |
                                    ((flags & AT_EMPTY_PATH) != 0 ? kAllowEmpty : 0u)));
    }
    if (found.anonymous) {
        return task.copy_out(out, to_statx(shown_to(task, TRY(found.anonymous->stat(task)))));
    }
    Inode& inode = *found.path.dentry()->inode();
    const InodeAttributes a = TRY(inode.attributes());
    struct statx x = to_statx(shown_to(task, to_stat(a, inode.file_system().device())));
    if (a.btime.tv_sec != 0) {
        x.stx_mask |= STATX_BTIME;
        x.stx_btime = to_statx_time(a.btime);
    }
    x.stx_mask |= STATX_MNT_ID;
    x.stx_mnt_id = static_cast<uint64_t>(found.path.mount()->id());
    x.stx_attributes_mask = STATX_ATTR_MOUNT_ROOT;
    if (found.path.dentry() == found.path.mount()->root().get()) {
        x.stx_attributes = STATX_ATTR_MOUNT_ROOT;
    }
    return task.copy_out(out, x);
}

Status sys_access(Task& task, UserPath path, int mode) {
    return sys_faccessat2(task, kCwd, path, mode, 0);
}

Status sys_faccessat(Task& task, DirFd dirfd, UserPath path, int mode) {
    return sys_faccessat2(task, dirfd, path, mode, 0);
}

Status sys_faccessat2(Task& task, DirFd dirfd, UserPath path, int mode, int flags) {
    return access_at(task, dirfd, TRY(task.copy_in_path(path)), mode, flags);
}

Status sys_statfs(Task& task, UserPath user_path, UserPtr<struct statfs> out) {
    const Path path = TRY(resolve(task, kCwd, TRY(task.copy_in_path(user_path))));
    return task.copy_out(out,
                         with_mount(TRY(path.mount()->file_system().statistics()), *path.mount()));
}

Status sys_fstatfs(Task& task, Fd fd, UserPtr<struct statfs> out) {
    RefPtr<File> file = TRY(task.fds().get(fd));
    if (file->path()) {
        const Mount& mount = *file->path().mount();
        return task.copy_out(out, with_mount(TRY(mount.file_system().statistics()), mount));
    }
    struct statfs st {};
    const uint32_t type = TRY(file->stat(task)).st_mode & S_IFMT;
    st.f_type = type == S_IFIFO ? 0x50495045 : type == S_IFSOCK ? 0x534f434b : 0x09041934;
    st.f_bsize = kPageSize;
    st.f_frsize = kPageSize;
    st.f_namelen = 255;
    return task.copy_out(out, st);
}

Status sys_chmod(Task& task, UserPath path, uint32_t mode) {
    return change_mode(task, TRY(resolve_at(task, kCwd, path, 0)), mode);
}

Status sys_fchmod(Task& task, Fd fd, uint32_t mode) {
    return change_mode(task, TRY(path_of(task, fd)), mode);
}

Status sys_fchmodat(Task& task, DirFd dirfd, UserPath path, uint32_t mode) {
    return change_mode(task, TRY(resolve_at(task, dirfd, path, 0)), mode);
}

Status sys_fchmodat2(Task& task, DirFd dirfd, UserPath path, uint32_t mode, uint32_t flags) {
    return change_mode(task, TRY(resolve_at(task, dirfd, path, static_cast<int>(flags))), mode);
}

Status sys_chown(Task& task, UserPath path, uint32_t uid, uint32_t gid) {
    return set_owner(task, TRY(resolve_at(task, kCwd, path, 0)), uid, gid);
}

Status sys_lchown(Task& task, UserPath path, uint32_t uid, uint32_t gid) {
    return set_owner(task, TRY(resolve_at(task, kCwd, path, AT_SYMLINK_NOFOLLOW)), uid, gid);
}

Status sys_fchown(Task& task, Fd fd, uint32_t uid, uint32_t gid) {
    return set_owner(task, TRY(path_of(task, fd)), uid, gid);
}

Status sys_fchownat(Task& task, DirFd dirfd, UserPath path, uint32_t uid, uint32_t gid, int flags) {
    return set_owner(task, TRY(resolve_at(task, dirfd, path, flags)), uid, gid);
}

Status sys_utime(Task& task, UserPath user_path, UserPtr<const utimbuf> user_times) {
    timespec times[2];
    if (user_times) {
        const utimbuf given = TRY(task.copy_in(user_times));
        times[0] = {given.actime, 0};
        times[1] = {given.modtime, 0};
    }
    const std::string path = TRY(task.copy_in_path(user_path));
    return change_times(task, TRY(resolve(task, kCwd, path)), user_times ? times : nullptr);
}

Status sys_utimes(Task& task, UserPath path, UserPtr<const timeval> times) {
    return set_times_us(task, kCwd, path, times);
}

Status sys_futimesat(Task& task, DirFd dirfd, UserPath path, UserPtr<const timeval> times) {
    return set_times_us(task, dirfd, path, times);
}

Status sys_utimensat(Task& task, DirFd dirfd, UserPath user_path,
                     UserPtr<const timespec> user_times, int flags) {
    timespec times[2];
    if (user_times) {
        const auto given = TRY(task.copy_in_array(user_times, 2));
        times[0] = given[0];
        times[1] = given[1];
        if (times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT) {
            return {};
        }
    }
    // futimens(3): no path at all means the descriptor itself.
    const Path path = user_path.is_null() && !(dirfd == kCwd)
                          ? TRY(path_of(task, Fd{static_cast<int32_t>(dirfd)}))
                          : TRY(resolve_at(task, dirfd, user_path, flags));
    return change_times(task, path, user_times ? times : nullptr);
}

}  // namespace moat::kernel
