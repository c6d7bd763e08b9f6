#include <fcntl.h>
#include <sys/resource.h>

#include "kernel/fs/fd_table.h"
#include "kernel/fs/proc/task_view.h"
#include "kernel/syscalls/handlers_task.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/pidfd.h"
#include "kernel/task/task.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

Result<Fd> sys_pidfd_open(Task& task, int32_t pid, uint32_t flags) {
    constexpr uint32_t kNonblock = O_NONBLOCK;  // PIDFD_NONBLOCK
    if ((flags & ~kNonblock) != 0 || pid <= 0) {
        return Errno(EINVAL);
    }
    RefPtr<ThreadGroup> group = task.pid_namespace().find_group(pid);
    if (!group) {
        // A thread that is not its process's first.
        return Errno(task.pid_namespace().find_task(pid) ? ENOENT : ESRCH);
    }
    return task.fds().install(make_ref<PidFile>(std::move(group), flags), CloseOnExec::kYes,
                              task.rlimit(RLIMIT_NOFILE));
}

Result<Fd> sys_pidfd_getfd(Task& task, Fd fd, Fd wanted, uint32_t flags) {
    if (flags != 0) {
        return Errno(EINVAL);
    }
    const RefPtr<File> file = TRY(task.fds().get(fd));
    const RefPtr<ThreadGroup> target = TRY(process_of_pidfd(*file));
    const RefPtr<Task> leader = target->leader();
    const RefPtr<FdTable> theirs = leader ? leader->fds_ref() : nullptr;
    if (!theirs) {
        return Errno(ESRCH);
    }
    if (!may_inspect(task, *leader).ok()) {
        return Errno(EPERM);
    }
    return task.fds().install(TRY(theirs->get(wanted)), CloseOnExec::kYes,
                              task.rlimit(RLIMIT_NOFILE));
}

}  // namespace moat::kernel
