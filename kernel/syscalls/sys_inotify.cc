#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/resource.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/inotify/inotify.h"
#include "kernel/fs/permission.h"
#include "kernel/syscalls/file_io.h"
#include "kernel/syscalls/handlers_fs.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

Result<RefPtr<File>> inotify_file(Task& task, Fd fd) {
    RefPtr<File> file = TRY(any_file(task, fd));
    if (file->anonymous_name() != "anon_inode:inotify") {
        return Errno(EINVAL);
    }
    return file;
}

}  // namespace

Result<Fd> sys_inotify_init(Task& task) { return sys_inotify_init1(task, 0); }

Result<Fd> sys_inotify_init1(Task& task, uint32_t flags) {
    if ((flags & ~static_cast<uint32_t>(IN_CLOEXEC | IN_NONBLOCK)) != 0) {
        return Errno(EINVAL);
    }
    return task.fds().install(make_ref<InotifyFile>(O_RDONLY | (flags & IN_NONBLOCK)),
                              (flags & IN_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo,
                              task.rlimit(RLIMIT_NOFILE));
}

Result<int64_t> sys_inotify_add_watch(Task& task, Fd fd, UserPath user_path, uint32_t mask) {
    constexpr uint32_t kOptions =
        IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_MASK_CREATE | IN_MASK_ADD | IN_ONESHOT;
    if ((mask & IN_ALL_EVENTS) == 0 ||
        (mask & ~(kOptions | IN_ALL_EVENTS | IN_UNMOUNT | IN_ISDIR | IN_Q_OVERFLOW | IN_IGNORED)) !=
            0 ||
        (mask & (IN_MASK_ADD | IN_MASK_CREATE)) == (IN_MASK_ADD | IN_MASK_CREATE)) {
        return Errno(EINVAL);
    }
    RefPtr<File> file = TRY(inotify_file(task, fd));
    const Path path = TRY(resolve(task, kCwd, TRY(task.copy_in_path(user_path)),
                                  ((mask & IN_ONLYDIR) != 0 ? kDirectory : 0u) |
                                      ((mask & IN_DONT_FOLLOW) != 0 ? kNoFollow : 0u)));
    TRY(check_permission(task, *path.dentry()->inode(), kMayRead));
    return TRY(static_cast<InotifyFile&>(*file).add_watch(path, mask));
}

Status sys_inotify_rm_watch(Task& task, Fd fd, int32_t descriptor) {
    RefPtr<File> file = TRY(inotify_file(task, fd));
    return static_cast<InotifyFile&>(*file).remove_watch(descriptor);
}

}  // namespace moat::kernel
