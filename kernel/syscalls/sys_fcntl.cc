#include <fcntl.h>
#include <sys/resource.h>

#include "kernel/syscalls/handlers_fs.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {
/// What F_SETFL may change (Linux: SETFL_MASK); O_ASYNC is not built.
constexpr uint32_t kSettable = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;
}  // namespace

Result<int64_t> sys_fcntl(Task& task, Fd fd, int command, uint64_t argument) {
    FdTable& fds = task.fds();
    RefPtr<File> file = TRY(fds.get(fd));
    if (file->is_path_only() && command != F_DUPFD && command != F_DUPFD_CLOEXEC &&
        command != F_GETFD && command != F_SETFD && command != F_GETFL) {
        return Errno(EBADF);
    }
    switch (command) {
        case F_DUPFD:
        case F_DUPFD_CLOEXEC:
            return to_integer(TRY(fds.install(
                std::move(file), command == F_DUPFD ? CloseOnExec::kNo : CloseOnExec::kYes,
                task.rlimit(RLIMIT_NOFILE), static_cast<int32_t>(argument))));
        case F_GETFD:
            return TRY(fds.close_on_exec(fd)) == CloseOnExec::kYes ? FD_CLOEXEC : 0;
        case F_SETFD:
            TRY(fds.set_close_on_exec(
                fd, (argument & FD_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo));
            return 0;
        case F_GETFL:
            return file->flags();
        case F_SETFL:
            if ((argument & O_ASYNC) != 0) {
                (void)unsupported("fcntl F_SETFL O_ASYNC", EINVAL);  // ignored, as for plain files
            }
            file->set_flags((file->flags() & ~kSettable) |
                            (static_cast<uint32_t>(argument) & kSettable));
            return 0;
        case F_GETLK:
        case F_SETLK:
        case F_SETLKW:
        case F_OFD_GETLK:
        case F_OFD_SETLK:
        case F_OFD_SETLKW:
            return fcntl_lock(task, file, command, UserPtr<struct flock>(argument));
        case F_GETOWN:
            return file->owner();
        case F_SETOWN:
            file->set_owner(static_cast<int32_t>(argument));
            return 0;
        case F_GETSIG:
            return 0;
        case F_SETSIG:
            return argument == 0 ? Result<int64_t>(0) : unsupported("fcntl F_SETSIG", EINVAL);
        case F_SETLEASE:
            return unsupported("fcntl F_SETLEASE", EINVAL);
        case F_GETLEASE:
            return F_UNLCK;
        case F_NOTIFY:
            return unsupported("fcntl F_NOTIFY", EINVAL);
        default:
            return file->fcntl(task, command, argument);
    }
}

}  // namespace moat::kernel
