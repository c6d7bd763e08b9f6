#include <fcntl.h>
#include <linux/capability.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/fd_table.h"
#include "kernel/fs/inotify/inotify.h"
#include "kernel/fs/permission.h"
#include "kernel/fs/regular_file.h"
#include "kernel/fs/vfs.h"
#include "kernel/task/task.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

struct stat to_stat(const InodeAttributes& a, uint64_t device) {
    struct stat st {};
    st.st_dev = device;
    st.st_ino = a.ino;
    st.st_nlink = a.nlink;
    st.st_mode = a.mode;
    st.st_uid = a.uid;
    st.st_gid = a.gid;
    st.st_rdev = a.rdev;
    st.st_size = a.size;
    st.st_blksize = a.block_size;
    st.st_blocks = static_cast<blkcnt_t>(a.blocks);
    st.st_atim = a.atime;
    st.st_mtim = a.mtime;
    st.st_ctim = a.ctime;
    return st;
}

Result<struct stat> stat_path(Task&, const Path& path) {
    Inode& inode = *path.dentry()->inode();
    return to_stat(TRY(inode.attributes()), inode.file_system().device());
}

Result<struct stat> stat_at(Task& task, DirFd dirfd, std::string_view path, int flags) {
    if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE)) !=
        0) {
        return Errno(EINVAL);
    }
    if (path.empty() && (flags & AT_EMPTY_PATH) != 0 && !(dirfd == kCwd)) {
        RefPtr<File> file = TRY(task.fds().get(Fd{static_cast<int32_t>(dirfd)}));
        return file->stat(task);
    }
    const Resolved found = TRY(resolve_any(task, dirfd, path,
                                           ((flags & AT_SYMLINK_NOFOLLOW) != 0 ? kNoFollow : 0u) |
                                               ((flags & AT_EMPTY_PATH) != 0 ? kAllowEmpty : 0u)));
    return found.anonymous ? found.anonymous->stat(task) : stat_path(task, found.path);
}

Status access_at(Task& task, DirFd dirfd, std::string_view path, int mode, int flags) {
    if ((mode & ~7) != 0 || (flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) {
        return Errno(EINVAL);
    }
    const Resolved found = TRY(resolve_any(task, dirfd, path,
                                           ((flags & AT_SYMLINK_NOFOLLOW) != 0 ? kNoFollow : 0u) |
                                               ((flags & AT_EMPTY_PATH) != 0 ? kAllowEmpty : 0u)));
    if (found.anonymous || mode == F_OK) {
        return {};
    }
    CredentialsRef who = task.credentials();
    if ((flags & AT_EACCESS) == 0 &&
        (who->fsuid != who->uid || who->fsgid != who->gid || who->uid != 0)) {
        // access(2): as the real user, who has the capabilities only if it is root.
        RefPtr<Credentials> real = who->clone();
        real->fsuid = real->uid;
        real->fsgid = real->gid;
        real->effective = real->uid == 0 ? real->permitted : 0;
        who = real;
    }
    Inode& inode = *found.path.dentry()->inode();
    if ((mode & X_OK) != 0 && inode.is_regular() && found.path.mount()->no_exec()) {
        return Errno(EACCES);
    }
    TRY(check_permission_as(task, inode, mode, *who));
    if ((mode & W_OK) != 0 && !S_ISCHR(inode.type()) && !S_ISBLK(inode.type()) &&
        !S_ISFIFO(inode.type()) && !S_ISSOCK(inode.type())) {
        return check_writable_mount(found.path);
    }
    return {};
}

Result<std::string> read_link_at(Task& task, DirFd dirfd, std::string_view path) {
    const Path found =
        TRY(resolve(task, dirfd, path, kNoFollow | (dirfd == kCwd ? 0u : kAllowEmpty)));
    Inode& inode = *found.dentry()->inode();
    if (!inode.is_symlink()) {
        return Errno(path.empty() ? ENOENT : EINVAL);
    }
    return inode.read_link(task);
}

Status change_mode(Task& task, const Path& path, uint32_t mode) {
    Inode& inode = *path.dentry()->inode();
    TRY(check_writable_mount(path));
    if (inode.is_symlink()) {
        return Errno(EOPNOTSUPP);
    }
    TRY(check_ownership(task, inode));
    mode &= 07777;
    const CredentialsRef who = task.credentials();
    if ((mode & S_ISGID) != 0 && !who->in_group(TRY(inode.owner()).gid) &&
        !who->has_capability(CAP_FSETID)) {
        mode &= ~static_cast<uint32_t>(S_ISGID);
    }
    AttributeChange change;
    change.mode = mode;
    TRY(inode.set_attributes(change));
    notify_file(path, IN_ATTRIB);
    return {};
}

Status change_owner(Task& task, const Path& path, uint32_t uid, uint32_t gid) {
    Inode& inode = *path.dentry()->inode();
    TRY(check_writable_mount(path));
    const InodeOwner owner = TRY(inode.owner());
    const CredentialsRef who = task.credentials();
    AttributeChange change;
    const bool may_any = has_capability_over(owner, *who, CAP_CHOWN);
    if (uid != UINT32_MAX) {
        if (!may_any && (who->fsuid != owner.uid || uid != owner.uid)) {
            return Errno(EPERM);
        }
        change.uid = uid;
    }
    if (gid != UINT32_MAX) {
        if (!may_any && (who->fsuid != owner.uid || (gid != owner.gid && !who->in_group(gid)))) {
            return Errno(EPERM);
        }
        change.gid = gid;
    }
    if (!inode.is_directory()) {
        const uint32_t stripped = mode_without_privilege(owner.mode);
        if (stripped != owner.mode) {
            change.mode = stripped & 07777;
        }
    }
    TRY(inode.set_attributes(change));
    notify_file(path, IN_ATTRIB);
    return {};
}

Status change_times(Task& task, const Path& path, const timespec* times) {
    Inode& inode = *path.dentry()->inode();
    const timespec now = realtime();
    AttributeChange change;
    bool all_now = true;
    if (times == nullptr) {
        change.atime = change.mtime = now;
    } else {
        std::optional<timespec>* const fields[] = {&change.atime, &change.mtime};
        for (int i = 0; i < 2; i++) {
            if (times[i].tv_nsec == UTIME_NOW) {
                *fields[i] = now;
            } else if (times[i].tv_nsec == UTIME_OMIT) {
                all_now = false;
            } else if (times[i].tv_nsec < 0 || times[i].tv_nsec > 999'999'999) {
                return Errno(EINVAL);
            } else {
                *fields[i] = times[i];
                all_now = false;
            }
        }
        if (!change.atime && !change.mtime) {
            return {};
        }
    }
    TRY(check_writable_mount(path));
    if (const Status owns = check_ownership(task, inode); !owns.ok()) {
        if (!all_now) {
            return Errno(EPERM);
        }
        TRY(check_permission(task, inode, kMayWrite));
    }
    TRY(inode.set_attributes(change));
    notify_file(path, IN_ATTRIB);
    return {};
}

Status truncate_path(Task& task, const Path& path, int64_t size) {
    Inode& inode = *path.dentry()->inode();
    if (size < 0) {
        return Errno(EINVAL);
    }
    if (!inode.is_regular()) {
        return Errno(inode.is_directory() ? EISDIR : EINVAL);
    }
    TRY(check_permission(task, path, kMayWrite));
    TRY(limit_file_size(task, size));
    AttributeChange change;
    change.size = size;
    const InodeOwner owner = TRY(inode.owner());
    const uint32_t stripped = mode_without_privilege(owner.mode);
    if (stripped != owner.mode && !task.has_capability(CAP_FSETID)) {
        change.mode = stripped & 07777;
    }
    change.mtime = realtime();
    TRY(inode.set_attributes(change));
    notify_file(path, IN_MODIFY);
    return {};
}

void strip_privilege(Task& task, File& file) {
    const Path& path = file.path();
    if (!path || !path.dentry()->inode()->is_regular()) {
        return;
    }
    Inode& inode = *path.dentry()->inode();
    const auto owner = inode.owner();
    if (!owner.ok() || mode_without_privilege(owner->mode) == owner->mode ||
        task.has_capability(CAP_FSETID)) {
        return;
    }
    AttributeChange change;
    change.mode = mode_without_privilege(owner->mode) & 07777;
    (void)inode.set_attributes(change);
}

}  // namespace moat::kernel
