#include <fcntl.h>
#include <sys/resource.h>

#include "kernel/fs/timerfd/timerfd.h"
#include "kernel/syscalls/handlers_io.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

namespace {

constexpr uint32_t kCancelOnSet = 2;  // TFD_TIMER_CANCEL_ON_SET

Result<RefPtr<File>> get_timer(Task& task, Fd fd) {
    auto file = TRY(task.fds().get(fd));
    if (dynamic_cast<TimerFile*>(file.get()) == nullptr) {
        return Errno(EINVAL);
    }
    return file;
}

}  // namespace

Result<Fd> sys_timerfd_create(Task& task, int clock, uint32_t flags) {
    if ((flags & ~static_cast<uint32_t>(TFD_CLOEXEC | TFD_NONBLOCK)) != 0 ||
        !is_timer_clock(clock) || clock == CLOCK_TAI) {
        return Errno(EINVAL);
    }
    return task.fds().install(make_ref<TimerFile>(clock, flags & TFD_NONBLOCK),
                              (flags & TFD_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo,
                              task.rlimit(RLIMIT_NOFILE));
}

Status sys_timerfd_settime(Task& task, Fd fd, uint32_t flags, UserPtr<const itimerspec> value,
                           UserPtr<itimerspec> old) {
    const itimerspec wanted = TRY(task.copy_in(value));
    if ((flags & ~(TFD_TIMER_ABSTIME | kCancelOnSet)) != 0 || !is_valid(wanted.it_value) ||
        !is_valid(wanted.it_interval)) {
        return Errno(EINVAL);
    }
    const auto file = TRY(get_timer(task, fd));
    const itimerspec before =
        static_cast<TimerFile&>(*file).core().set(wanted, (flags & TFD_TIMER_ABSTIME) != 0);
    if (old) {
        TRY(task.copy_out(old, before));
    }
    return {};
}

Status sys_timerfd_gettime(Task& task, Fd fd, UserPtr<itimerspec> value) {
    const auto file = TRY(get_timer(task, fd));
    return task.copy_out(value, static_cast<TimerFile&>(*file).core().get());
}

}  // namespace moat::kernel
