#include <linux/capability.h>
#include <sys/mount.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/registry.h"
#include "kernel/fs/vfs.h"
#include "kernel/syscalls/handlers_fs.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr uint64_t kMagicMask = 0xffff0000;  // MS_MGC_MSK: of kernels before 2.4
constexpr uint64_t kPropagation = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE;

std::vector<std::string> split_options(const std::string& data) {
    std::vector<std::string> options;
    size_t begin = 0;
    while (begin < data.size()) {
        const size_t end = std::min(data.find(',', begin), data.size());
        options.push_back(data.substr(begin, end - begin));
        begin = end + 1;
    }
    return options;
}

Status require_admin(Task& task) {
    return task.has_capability(CAP_SYS_ADMIN) ? Status() : Status(Errno(EPERM));
}

bool is_mount_root(const Path& path) { return path.dentry() == path.mount()->root().get(); }

Status mount_new(Task& task, const Path& target, const std::string& source, const std::string& type,
                 uint64_t flags, const std::string& data) {
    FileSystemRequest request;
    request.container = &task.container();
    request.task = &task;
    request.source = source;
    request.options = split_options(data);
    request.read_only = (flags & MS_RDONLY) != 0;
    auto fs = make_file_system(type, request);
    if (!fs.ok()) {
        const int error = fs.error().value();
        return error == ENODEV || error == EPERM ? unsupported("mount of this type", error)
                                                 : fs.error();
    }
    TRY(task.fs().mounts_ref()->mount(target, std::move(*fs), flags,
                                      source.empty() ? type : source));
    return {};
}

}  // namespace

Status sys_mount(Task& task, UserPath user_source, UserPath user_target, UserPath user_type,
                 uint64_t flags, UserPath user_data) {
    std::string type;
    if (user_type) {
        type = TRY(task.copy_in_string(user_type, kPageSize, Errno(EINVAL)));
    }
    std::string source;
    if (user_source) {
        source = TRY(task.copy_in_path(user_source));
    }
    if ((flags & kMagicMask) == MS_MGC_VAL) {
        flags &= ~kMagicMask;
    }
    std::string data;
    const bool takes_data = (flags & (MS_BIND | MS_MOVE | kPropagation)) == 0;
    if (user_data && takes_data) {
        data = TRY(task.copy_in_string(user_data, kPageSize, Errno(EINVAL)));
    }
    const Path target =
        follow_mounts(TRY(resolve(task, kCwd, TRY(task.copy_in_path(user_target)))));
    TRY(require_admin(task));
    const RefPtr<MountNamespace> mounts = task.fs().mounts_ref();
    if ((flags & MS_REMOUNT) != 0) {
        // With and without MS_BIND: only the mount's flags; a file system's own options stay as
        // they are.
        if (!is_mount_root(target)) {
            return Errno(EINVAL);
        }
        target.mount()->set_flags(flags);
        return {};
    }
    if ((flags & MS_BIND) != 0) {
        if (source.empty()) {
            return Errno(EINVAL);
        }
        const Path from = TRY(resolve(task, kCwd, source));
        TRY(mounts->bind(from, target,
                         (flags & MS_REC) != 0 ? MountNamespace::Recursive::kYes
                                               : MountNamespace::Recursive::kNo));
        return {};
    }
    if ((flags & kPropagation) != 0) {
        // Accepted: nothing propagates into or out of a container's tree, whatever is asked for.
        return is_mount_root(target) ? Status() : Status(Errno(EINVAL));
    }
    if ((flags & MS_MOVE) != 0) {
        const Path from = TRY(resolve(task, kCwd, source));
        return mounts->move(from, target);
    }
    if (type.empty()) {
        return Errno(EINVAL);
    }
    return mount_new(task, target, source, type, flags, data);
}

Status sys_umount2(Task& task, UserPath user_target, int flags) {
    constexpr int kKnown = MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW;
    if ((flags & ~kKnown) != 0) {
        return Errno(EINVAL);
    }
    if ((flags & MNT_EXPIRE) != 0) {
        return unsupported("umount2 MNT_EXPIRE", EINVAL);
    }
    const Path target =
        follow_mounts(TRY(resolve(task, kCwd, TRY(task.copy_in_path(user_target)),
                                  (flags & UMOUNT_NOFOLLOW) != 0 ? kNoFollow : 0u)));
    TRY(require_admin(task));
    return task.fs().mounts_ref()->unmount(target, flags);
}

Status sys_pivot_root(Task& task, UserPath user_new_root, UserPath user_put_old) {
    TRY(require_admin(task));
    const Path next = TRY(resolve(task, kCwd, TRY(task.copy_in_path(user_new_root)), kDirectory));
    const Path put_old = TRY(resolve(task, kCwd, TRY(task.copy_in_path(user_put_old)), kDirectory));
    FsContext& fs = task.fs();
    const RefPtr<MountNamespace> mounts = fs.mounts_ref();
    const Path old = mounts->root();
    if (!(fs.root() == old)) {
        return Errno(EINVAL);  // the caller's root is not a mount's root
    }
    TRY(mounts->pivot_root(next, put_old));
    fs.set_root(next);
    if (fs.cwd() == old) {
        fs.set_cwd(next);
    }
    return {};
}

}  // namespace moat::kernel
