#include <fcntl.h>
#include <sys/resource.h>

#include "kernel/fs/pipe/pipe.h"
#include "kernel/syscalls/handlers_io.h"
#include "kernel/syscalls/syscall.h"

namespace moat::kernel {

Status sys_pipe(Task& task, UserPtr<int32_t> fds) { return sys_pipe2(task, fds, 0); }

Status sys_pipe2(Task& task, UserPtr<int32_t> fds, uint32_t flags) {
    if ((flags & ~static_cast<uint32_t>(O_CLOEXEC | O_NONBLOCK | O_DIRECT)) != 0) {
        return Errno(EINVAL);
    }
    auto [reader, writer] = make_pipe(task, flags & (O_NONBLOCK | O_DIRECT));
    const auto cloexec = (flags & O_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo;
    const auto [first, second] = TRY(task.fds().install_pair(std::move(reader), std::move(writer),
                                                             cloexec, task.rlimit(RLIMIT_NOFILE)));
    const int32_t numbers[2] = {to_integer(first), to_integer(second)};
    const Status copied = task.copy_out_bytes(fds.address(), numbers, sizeof numbers);
    if (!copied.ok()) {
        // Closed again; another thread may have been quicker, or have put something else there: as
        // on Linux, where the descriptors are only entered once the numbers are out, a guest that
        // races for numbers it was never told gets what it asked for.
        (void)task.fds().remove(first);
        (void)task.fds().remove(second);
    }
    return copied;
}

}  // namespace moat::kernel
