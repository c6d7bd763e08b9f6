#include <linux/capability.h>
#include <sched.h>

#include <algorithm>

#include "kernel/fs/fd_table.h"
#include "kernel/fs/mount.h"
#include "kernel/syscalls/handlers_task.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

namespace {

constexpr uint64_t kOtherNamespaces = CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |
                                      CLONE_NEWNET | CLONE_NEWCGROUP | 0x80 /* CLONE_NEWTIME */;
/// What only a process of one thread may ask for; there is nothing to unshare then.
constexpr uint64_t kSingleThread = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM;
constexpr uint64_t kKnown =
    kOtherNamespaces | kSingleThread | CLONE_NEWNS | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM;

/// The same place in the new tree.
Path moved_path(const Path& path,
                const std::vector<std::pair<RefPtr<Mount>, RefPtr<Mount>>>& moved) {
    const auto pair = std::find_if(moved.begin(), moved.end(), [&](const auto& each) {
        return each.first.get() == path.mount();
    });
    return pair == moved.end() ? path : Path(pair->second, path.dentry_ref());
}

}  // namespace

/// unshare(2). Linux: kernel/fork.c:ksys_unshare.
Status sys_unshare(Task& task, uint64_t flags) {
    if ((flags & ~kKnown) != 0) {
        return Errno(EINVAL);
    }
    if ((flags & kSingleThread) != 0 && TaskTable::tasks_of(task.group()).size() > 1) {
        return Errno(EINVAL);
    }
    if ((flags & kOtherNamespaces) != 0) {
        return unsupported("unshare of namespaces other than mounts", EPERM);
    }
    if ((flags & CLONE_NEWNS) != 0 && !task.has_capability(CAP_SYS_ADMIN)) {
        return Errno(EPERM);
    }
    if ((flags & (CLONE_FS | CLONE_NEWNS)) != 0) {
        RefPtr<FsContext> fs = task.fs().clone();
        if ((flags & CLONE_NEWNS) != 0) {
            std::vector<std::pair<RefPtr<Mount>, RefPtr<Mount>>> moved;
            RefPtr<MountNamespace> mounts = fs->mounts().clone(&moved);
            fs->set_root(moved_path(fs->root(), moved));
            fs->set_cwd(moved_path(fs->cwd(), moved));
            fs->set_mounts(std::move(mounts));
        }
        task.set_fs(std::move(fs));
    }
    if ((flags & CLONE_FILES) != 0) {
        task.set_fds(task.fds().clone());
    }
    return {};
}

}  // namespace moat::kernel
