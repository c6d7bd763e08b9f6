#include "kernel/fs/permission.h"

#include <sys/stat.h>

#include <linux/capability.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/mount.h"
#include "kernel/task/task.h"

namespace moat::kernel {

bool has_capability_over(const InodeOwner& owner, const Credentials& who, int capability) {
    return who.has_capability(capability) && who.has_uid(owner.uid) && who.has_gid(owner.gid);
}

Status generic_permission(const InodeOwner& owner, const Credentials& who, int may) {
    uint32_t allowed = owner.mode;
    if (who.fsuid == owner.uid) {
        allowed >>= 6;
    } else if (who.in_group(owner.gid)) {
        allowed >>= 3;
    }
    if ((static_cast<uint32_t>(may) & ~allowed & 7) == 0) {
        return {};
    }
    const bool directory = S_ISDIR(owner.mode);
    // Capabilities override all but the execution of a file that nobody may execute.
    if (directory || (may & kMayExec) == 0 || (owner.mode & 0111) != 0) {
        if (has_capability_over(owner, who, CAP_DAC_OVERRIDE)) {
            return {};
        }
    }
    const bool only_looks = directory ? (may & kMayWrite) == 0 : may == kMayRead;
    if (only_looks && has_capability_over(owner, who, CAP_DAC_READ_SEARCH)) {
        return {};
    }
    return Errno(EACCES);
}

Status check_permission_as(Task& task, Inode& inode, int may, const Credentials& who) {
    if (std::optional<Status> own = inode.check_permission(task, may)) {
        return *own;
    }
    return generic_permission(TRY(inode.owner()), who, may);
}

Status check_permission(Task& task, Inode& inode, int may) {
    return check_permission_as(task, inode, may, *task.credentials());
}

Status check_permission(Task& task, const Path& path, int may) {
    Inode& inode = *path.dentry()->inode();
    if ((may & kMayWrite) != 0 &&
        (inode.is_regular() || inode.is_directory() || inode.is_symlink())) {
        TRY(check_writable_mount(path));
    }
    return check_permission(task, inode, may);
}

Status check_writable_mount(const Path& path) {
    return path.mount()->read_only() ? Status(Errno(EROFS)) : Status();
}

Status check_ownership(Task& task, Inode& inode) {
    const CredentialsRef who = task.credentials();
    const InodeOwner owner = TRY(inode.owner());
    if (who->fsuid == owner.uid || has_capability_over(owner, *who, CAP_FOWNER)) {
        return {};
    }
    return Errno(EPERM);
}

Status check_delete(Task& task, Inode& directory, Inode& victim) {
    TRY(check_permission(task, directory, kMayWrite | kMayExec));
    const InodeOwner parent = TRY(directory.owner());
    if ((parent.mode & S_ISVTX) != 0) {
        const CredentialsRef who = task.credentials();
        const InodeOwner owner = TRY(victim.owner());
        if (who->fsuid != parent.uid && who->fsuid != owner.uid &&
            !has_capability_over(owner, *who, CAP_FOWNER)) {
            return Errno(EPERM);
        }
    }
    return {};
}

Result<NewInode> new_inode_in(Task& task, Inode& directory, uint32_t mode, uint64_t rdev) {
    const CredentialsRef who = task.credentials();
    const InodeOwner parent = TRY(directory.owner());
    NewInode made{mode, who->fsuid, who->fsgid, rdev};
    if ((parent.mode & S_ISGID) != 0) {
        made.gid = parent.gid;
        if (S_ISDIR(mode)) {
            made.mode |= S_ISGID;
        } else if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
                   !who->in_group(parent.gid) && !who->has_capability(CAP_FSETID)) {
            made.mode &= ~static_cast<uint32_t>(S_ISGID);
        }
    }
    return made;
}

uint32_t mode_without_privilege(uint32_t mode) {
    mode &= ~static_cast<uint32_t>(S_ISUID);
    if ((mode & S_IXGRP) != 0) {
        mode &= ~static_cast<uint32_t>(S_ISGID);
    }
    return mode;
}

}  // namespace moat::kernel
