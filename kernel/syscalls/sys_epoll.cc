#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>

#include "kernel/fs/epoll/epoll.h"
#include "kernel/syscalls/handlers_io.h"
#include "kernel/syscalls/io_common.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task_signals.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

namespace {

constexpr int kMaxEvents = INT32_MAX / static_cast<int>(sizeof(epoll_event));

Result<RefPtr<File>> get_epoll(Task& task, Fd epfd) {
    auto file = TRY(task.fds().get(epfd));
    if (dynamic_cast<EpollFile*>(file.get()) == nullptr) {
        return Errno(EINVAL);
    }
    return file;
}

/// Hands out what is ready, at most `max`; 0: nothing.
Result<int64_t> collect(Task& task, EpollCore& core, UserPtr<epoll_event> events, size_t max) {
    size_t done = 0;
    // Level-triggered items go back to the end of the ready list: a look at as many items as were
    // there at the start sees each once.
    size_t budget = core.ready_count();
    EpollCore::Batch batch(core);
    while (done < max && budget > 0) {
        const size_t taken = batch.take(std::min(max - done, budget));
        if (taken == 0) {
            break;
        }
        budget -= taken;
        const size_t count = batch.event_count();
        if (count > 0) {
            const Status copied = task.copy_out_bytes(events.at(done).address(), batch.events(),
                                                      count * sizeof(epoll_event));
            if (!copied.ok()) {
                batch.settle(EpollCore::Batch::Settle::kOnlyAsked);
                return done > 0 ? Result<int64_t>(static_cast<int64_t>(done)) : copied.error();
            }
        }
        batch.settle(EpollCore::Batch::Settle::kDelivered);
        done += count;
    }
    return static_cast<int64_t>(done);
}

Result<int64_t> wait(Task& task, Fd epfd, UserPtr<epoll_event> events, int max_events,
                     Timeout timeout) {
    if (max_events <= 0 || max_events > kMaxEvents) {
        return Errno(EINVAL);
    }
    auto file = TRY(get_epoll(task, epfd));
    EpollCore& core = static_cast<EpollFile&>(*file).core();
    const auto max = static_cast<size_t>(max_events);
    if (core.ready_count() > 0 || timeout.is_zero) {
        const int64_t found = TRY(collect(task, core, events, max));
        if (found > 0 || timeout.is_zero) {
            return found;
        }
    }
    return block(task, {{&core.waiters(), EPOLLIN}}, timeout.deadline,
                 [file = std::move(file), events, max](Task& self, Wake wake) -> Result<int64_t> {
                     const int64_t found =
                         TRY(collect(self, static_cast<EpollFile&>(*file).core(), events, max));
                     if (found > 0) {
                         return found;
                     }
                     switch (wake) {
                         case Wake::kReady:
                             return kBlocked;
                         case Wake::kTimeout:
                             return 0;
                         case Wake::kInterrupted:
                             break;
                     }
                     return Errno(EINTR);  // never restarted, not even with SA_RESTART (signal(7))
                 });
}

}  // namespace

Result<Fd> sys_epoll_create(Task& task, int size) {
    if (size <= 0) {
        return Errno(EINVAL);
    }
    return sys_epoll_create1(task, 0);
}

Result<Fd> sys_epoll_create1(Task& task, uint32_t flags) {
    if ((flags & ~static_cast<uint32_t>(EPOLL_CLOEXEC)) != 0) {
        return Errno(EINVAL);
    }
    return task.fds().install(make_ref<EpollFile>(),
                              flags != 0 ? CloseOnExec::kYes : CloseOnExec::kNo,
                              task.rlimit(RLIMIT_NOFILE));
}

Status sys_epoll_ctl(Task& task, Fd epfd, int operation, Fd fd, UserPtr<const epoll_event> event) {
    epoll_event wanted{};
    if (operation != EPOLL_CTL_DEL) {
        wanted = TRY(task.copy_in(event));
    }
    const auto file = TRY(task.fds().get(epfd));
    auto target = TRY(task.fds().get(fd));
    auto* const epoll = dynamic_cast<EpollFile*>(file.get());
    if (epoll == nullptr) {
        // Linux looks at the target first.
        return Errno(target->can_epoll() ? EINVAL : EPERM);
    }
    return epoll->core().control(*file, operation, std::move(target), fd, wanted);
}

Result<int64_t> sys_epoll_wait(Task& task, Fd epfd, UserPtr<epoll_event> events, int max_events,
                               int timeout_ms) {
    return wait(task, epfd, events, max_events, Timeout::from_ms(timeout_ms));
}

Result<int64_t> sys_epoll_pwait(Task& task, Fd epfd, UserPtr<epoll_event> events, int max_events,
                                int timeout_ms, UserPtr<const uint64_t> mask, size_t mask_size) {
    TRY(set_temporary_mask(task, mask, mask_size));
    return wait(task, epfd, events, max_events, Timeout::from_ms(timeout_ms));
}

Result<int64_t> sys_epoll_pwait2(Task& task, Fd epfd, UserPtr<epoll_event> events, int max_events,
                                 UserPtr<const timespec> timeout, UserPtr<const uint64_t> mask,
                                 size_t mask_size) {
    const Timeout limit = TRY(Timeout::copy_in(task, timeout));
    TRY(set_temporary_mask(task, mask, mask_size));
    return wait(task, epfd, events, max_events, limit);
}

}  // namespace moat::kernel
