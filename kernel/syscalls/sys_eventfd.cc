#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "kernel/fs/eventfd/eventfd.h"
#include "kernel/syscalls/handlers_io.h"
#include "kernel/syscalls/syscall.h"

namespace moat::kernel {

Result<Fd> sys_eventfd(Task& task, uint32_t initial) { return sys_eventfd2(task, initial, 0); }

Result<Fd> sys_eventfd2(Task& task, uint32_t initial, uint32_t flags) {
    if ((flags & ~static_cast<uint32_t>(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)) != 0) {
        return Errno(EINVAL);
    }
    const auto mode =
        (flags & EFD_SEMAPHORE) != 0 ? EventFile::Mode::kSemaphore : EventFile::Mode::kCounter;
    return task.fds().install(make_ref<EventFile>(initial, mode, flags & EFD_NONBLOCK),
                              (flags & EFD_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo,
                              task.rlimit(RLIMIT_NOFILE));
}

}  // namespace moat::kernel
