#include <fcntl.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "kernel/fs/vfs.h"
#include "kernel/syscalls/handlers_fs.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

/// The kernel's own encoding of a device number in mknod(2) has 32 bits: what is above is dropped.
uint64_t device_of(uint64_t encoded) {
    const auto low = static_cast<uint32_t>(encoded);
    return makedev((low >> 8) & 0xfff, (low & 0xff) | ((low >> 12) & 0xfff00));
}

}  // namespace

Status sys_mknod(Task& task, UserPath path, uint32_t mode, uint64_t device) {
    return make_node(task, kCwd, TRY(task.copy_in_path(path)), mode, device_of(device));
}

Status sys_mknodat(Task& task, DirFd dirfd, UserPath path, uint32_t mode, uint64_t device) {
    return make_node(task, dirfd, TRY(task.copy_in_path(path)), mode, device_of(device));
}

Status sys_unlink(Task& task, UserPath path) {
    return unlink_at(task, kCwd, TRY(task.copy_in_path(path)));
}

Status sys_unlinkat(Task& task, DirFd dirfd, UserPath user_path, uint32_t flags) {
    if ((flags & ~static_cast<uint32_t>(AT_REMOVEDIR)) != 0) {
        return Errno(EINVAL);
    }
    const std::string path = TRY(task.copy_in_path(user_path));
    return (flags & AT_REMOVEDIR) != 0 ? remove_directory_at(task, dirfd, path)
                                       : unlink_at(task, dirfd, path);
}

Status sys_rename(Task& task, UserPath old_path, UserPath new_path) {
    return sys_renameat2(task, kCwd, old_path, kCwd, new_path, 0);
}

Status sys_renameat(Task& task, DirFd old_dirfd, UserPath old_path, DirFd new_dirfd,
                    UserPath new_path) {
    return sys_renameat2(task, old_dirfd, old_path, new_dirfd, new_path, 0);
}

Status sys_renameat2(Task& task, DirFd old_dirfd, UserPath old_path, DirFd new_dirfd,
                     UserPath new_path, uint32_t flags) {
    const std::string from = TRY(task.copy_in_path(old_path));
    const std::string to = TRY(task.copy_in_path(new_path));
    return rename_at(task, old_dirfd, from, new_dirfd, to, flags);
}

Status sys_link(Task& task, UserPath old_path, UserPath new_path) {
    return sys_linkat(task, kCwd, old_path, kCwd, new_path, 0);
}

Status sys_linkat(Task& task, DirFd old_dirfd, UserPath old_path, DirFd new_dirfd,
                  UserPath new_path, int flags) {
    const std::string from = TRY(task.copy_in_path(old_path));
    const std::string to = TRY(task.copy_in_path(new_path));
    return make_link(task, old_dirfd, from, new_dirfd, to, flags);
}

Status sys_symlink(Task& task, UserPath target, UserPath path) {
    return sys_symlinkat(task, target, kCwd, path);
}

Status sys_symlinkat(Task& task, UserPath user_target, DirFd dirfd, UserPath user_path) {
    const std::string target = TRY(task.copy_in_path(user_target));
    const std::string path = TRY(task.copy_in_path(user_path));
    return make_symlink(task, target, dirfd, path);
}

Result<int64_t> sys_readlink(Task& task, UserPath path, GuestAddr buffer, int32_t size) {
    return sys_readlinkat(task, kCwd, path, buffer, size);
}

Result<int64_t> sys_readlinkat(Task& task, DirFd dirfd, UserPath user_path, GuestAddr buffer,
                               int32_t size) {
    if (size <= 0) {
        return Errno(EINVAL);
    }
    const std::string target = TRY(read_link_at(task, dirfd, TRY(task.copy_in_path(user_path))));
    const size_t n = std::min(target.size(), static_cast<size_t>(size));
    TRY(task.copy_out_bytes(buffer, target.data(), n));
    return static_cast<int64_t>(n);
}

}  // namespace moat::kernel
