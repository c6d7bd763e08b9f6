#include <fcntl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include "kernel/fs/signalfd/signalfd.h"
#include "kernel/syscalls/handlers_io.h"
#include "kernel/syscalls/syscall.h"

namespace moat::kernel {

Result<Fd> sys_signalfd(Task& task, Fd fd, UserPtr<const uint64_t> mask, size_t size) {
    return sys_signalfd4(task, fd, mask, size, 0);
}

Result<Fd> sys_signalfd4(Task& task, Fd fd, UserPtr<const uint64_t> mask, size_t size,
                         uint32_t flags) {
    if (size != sizeof(uint64_t)) {
        return Errno(EINVAL);
    }
    const uint64_t wanted = TRY(task.copy_in(mask));
    if ((flags & ~static_cast<uint32_t>(SFD_CLOEXEC | SFD_NONBLOCK)) != 0) {
        return Errno(EINVAL);
    }
    if (to_integer(fd) != -1) {
        const auto file = TRY(task.fds().get(fd));
        auto* const signals = dynamic_cast<SignalFile*>(file.get());
        if (signals == nullptr) {
            return Errno(EINVAL);
        }
        signals->set_mask(wanted);
        return fd;
    }
    return task.fds().install(make_ref<SignalFile>(task, wanted, flags & SFD_NONBLOCK),
                              (flags & SFD_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo,
                              task.rlimit(RLIMIT_NOFILE));
}

}  // namespace moat::kernel
