#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/xattr.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/inotify/inotify.h"
#include "kernel/fs/permission.h"
#include "kernel/fs/vfs.h"
#include "kernel/syscalls/file_io.h"
#include "kernel/syscalls/handlers_fs.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

enum class Access : uint8_t { kGet, kSet };

/// Who may touch which name (Linux: fs/xattr.c:xattr_permission).
Status check_xattr(Task& task, const Path& path, const std::string& name, Access access) {
    Inode& inode = *path.dentry()->inode();
    if (access == Access::kSet) {
        TRY(check_writable_mount(path));
    }
    if (name.starts_with("security.")) {
        // No security module: the attributes are plain data, but only an administrator's.
        if (access == Access::kSet &&
            !task.has_capability(name == "security.capability" ? CAP_SETFCAP : CAP_SYS_ADMIN)) {
            return Errno(EPERM);
        }
        return {};
    }
    if (name.starts_with("system.")) {
        return Errno(EOPNOTSUPP);  // POSIX ACLs: not built
    }
    if (name.starts_with("trusted.")) {
        if (!task.has_capability(CAP_SYS_ADMIN)) {
            return Errno(access == Access::kSet ? EPERM : ENODATA);
        }
        return {};
    }
    if (!name.starts_with("user.")) {
        return Errno(EOPNOTSUPP);
    }
    if (name.size() == 5) {
        return Errno(EINVAL);
    }
    if (!inode.is_regular() && !inode.is_directory()) {
        return Errno(access == Access::kSet ? EPERM : ENODATA);
    }
    if (access == Access::kSet && inode.is_directory() &&
        (TRY(inode.owner()).mode & S_ISVTX) != 0) {
        TRY(check_ownership(task, inode));
    }
    return check_permission(task, inode, access == Access::kSet ? kMayWrite : kMayRead);
}

Result<std::string> copy_in_name(Task& task, UserPath user_name) {
    std::string name = TRY(task.copy_in_string(user_name, XATTR_NAME_MAX + 1, Errno(ERANGE)));
    if (name.empty()) {
        return Errno(ERANGE);
    }
    return name;
}

Status set_value(Task& task, const Path& path, const std::string& name, GuestAddr value,
                 size_t size, int flags) {
    std::string bytes(size, '\0');
    TRY(task.copy_in_bytes(bytes.data(), value, size));
    TRY(check_xattr(task, path, name, Access::kSet));
    TRY(path.dentry()->inode()->set_xattr(task, name, bytes, flags));
    notify_file(path, IN_ATTRIB);
    return {};
}

Status check_set(int flags, size_t size) {
    if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) != 0) {
        return Errno(EINVAL);
    }
    return size > XATTR_SIZE_MAX ? Status(Errno(E2BIG)) : Status();
}

Result<int64_t> give(Task& task, const std::string& bytes, GuestAddr out, size_t size) {
    if (size == 0) {
        return static_cast<int64_t>(bytes.size());
    }
    if (bytes.size() > size) {
        return Errno(ERANGE);
    }
    TRY(task.copy_out_bytes(out, bytes.data(), bytes.size()));
    return static_cast<int64_t>(bytes.size());
}

Result<int64_t> get_value(Task& task, const Path& path, const std::string& name, GuestAddr value,
                          size_t size) {
    TRY(check_xattr(task, path, name, Access::kGet));
    return give(task, TRY(path.dentry()->inode()->get_xattr(task, name)), value, size);
}

Result<int64_t> list_names(Task& task, const Path& path, GuestAddr list, size_t size) {
    std::string all;
    for (const std::string& name : TRY(path.dentry()->inode()->list_xattrs(task))) {
        if (name.starts_with("trusted.") && !task.has_capability(CAP_SYS_ADMIN)) {
            continue;
        }
        all += name;
        all += '\0';
    }
    return give(task, all, list, size);
}

Status remove_name(Task& task, const Path& path, const std::string& name) {
    TRY(check_xattr(task, path, name, Access::kSet));
    TRY(path.dentry()->inode()->remove_xattr(task, name));
    notify_file(path, IN_ATTRIB);
    return {};
}

Result<Path> path_at(Task& task, UserPath user_path, uint32_t lookup) {
    return resolve(task, kCwd, TRY(task.copy_in_path(user_path)), lookup);
}

Result<Path> path_of(Task& task, Fd fd) {
    RefPtr<File> file = TRY(any_file(task, fd));
    if (!file->path()) {
        return Errno(EOPNOTSUPP);
    }
    return file->path();
}

}  // namespace

Status sys_setxattr(Task& task, UserPath path, UserPath user_name, GuestAddr value, size_t size,
                    int flags) {
    TRY(check_set(flags, size));
    const std::string name = TRY(copy_in_name(task, user_name));
    return set_value(task, TRY(path_at(task, path, 0)), name, value, size, flags);
}

Status sys_lsetxattr(Task& task, UserPath path, UserPath user_name, GuestAddr value, size_t size,
                     int flags) {
    TRY(check_set(flags, size));
    const std::string name = TRY(copy_in_name(task, user_name));
    return set_value(task, TRY(path_at(task, path, kNoFollow)), name, value, size, flags);
}

Status sys_fsetxattr(Task& task, Fd fd, UserPath user_name, GuestAddr value, size_t size,
                     int flags) {
    TRY(check_set(flags, size));
    const Path path = TRY(path_of(task, fd));
    return set_value(task, path, TRY(copy_in_name(task, user_name)), value, size, flags);
}

Result<int64_t> sys_getxattr(Task& task, UserPath path, UserPath user_name, GuestAddr value,
                             size_t size) {
    const std::string name = TRY(copy_in_name(task, user_name));
    return get_value(task, TRY(path_at(task, path, 0)), name, value, size);
}

Result<int64_t> sys_lgetxattr(Task& task, UserPath path, UserPath user_name, GuestAddr value,
                              size_t size) {
    const std::string name = TRY(copy_in_name(task, user_name));
    return get_value(task, TRY(path_at(task, path, kNoFollow)), name, value, size);
}

Result<int64_t> sys_fgetxattr(Task& task, Fd fd, UserPath user_name, GuestAddr value, size_t size) {
    const Path path = TRY(path_of(task, fd));
    return get_value(task, path, TRY(copy_in_name(task, user_name)), value, size);
}

Result<int64_t> sys_listxattr(Task& task, UserPath path, GuestAddr list, size_t size) {
    return list_names(task, TRY(path_at(task, path, 0)), list, size);
}

Result<int64_t> sys_llistxattr(Task& task, UserPath path, GuestAddr list, size_t size) {
    return list_names(task, TRY(path_at(task, path, kNoFollow)), list, size);
}

Result<int64_t> sys_flistxattr(Task& task, Fd fd, GuestAddr list, size_t size) {
    return list_names(task, TRY(path_of(task, fd)), list, size);
}

Status sys_removexattr(Task& task, UserPath path, UserPath user_name) {
    const std::string name = TRY(copy_in_name(task, user_name));
    return remove_name(task, TRY(path_at(task, path, 0)), name);
}

Status sys_lremovexattr(Task& task, UserPath path, UserPath user_name) {
    const std::string name = TRY(copy_in_name(task, user_name));
    return remove_name(task, TRY(path_at(task, path, kNoFollow)), name);
}

Status sys_fremovexattr(Task& task, Fd fd, UserPath user_name) {
    const Path path = TRY(path_of(task, fd));
    return remove_name(task, path, TRY(copy_in_name(task, user_name)));
}

}  // namespace moat::kernel
