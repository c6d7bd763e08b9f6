#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <sys/resource.h>

#include "kernel/fs/mqueue/mqueue.h"
#include "kernel/ipc/ipc_namespace.h"
#include "kernel/syscalls/handlers_ipc.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/block.h"
#include "kernel/task/container.h"
#include "kernel/task/signal.h"
#include "kernel/task/task.h"
#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

namespace {

constexpr uint32_t kMostPriority = 32768;  // MQ_PRIO_MAX

/// struct sigevent as far as mq_notify(2) looks at it.
struct UserSigevent {
    uint64_t value;
    int32_t signal;
    int32_t notify;
    uint8_t rest[48];
};
static_assert(sizeof(UserSigevent) == sizeof(sigevent));

/// An absolute time by CLOCK_REALTIME; never for a null pointer. EINVAL even where nobody waits.
Result<Deadline> copy_in_deadline(Task& task, UserPtr<const timespec> deadline) {
    if (!deadline) {
        return Deadline::never();
    }
    const timespec t = TRY(task.copy_in(deadline));
    if (!is_valid(t)) {
        return Errno(EINVAL);
    }
    return Deadline::at(monotonic_deadline(CLOCK_REALTIME, to_ns(t)));
}

Result<int64_t> deliver(Task& task, const MessageQueue::Target& target, const IpcMessage& message) {
    // Linux's order: the priority is out before the text may fault.
    if (target.priority_address != 0) {
        TRY(task.copy_out(UserPtr<uint32_t>(target.priority_address),
                          static_cast<uint32_t>(message.type)));
    }
    TRY(task.copy_out_bytes(GuestAddr{target.address}, message.bytes.data(), message.bytes.size()));
    return static_cast<int64_t>(message.bytes.size());
}

}  // namespace

Result<Fd> sys_mq_open(Task& task, UserPtr<const char> user_name, uint32_t flags, uint32_t mode,
                       UserPtr<const mq_attr> attributes) {
    mq_attr wanted{};
    const bool given = !attributes.is_null() && (flags & O_CREAT) != 0;
    if (given) {
        wanted = TRY(task.copy_in(attributes));
    }
    const std::string name = TRY(task.copy_in_path(user_name));
    if (name.empty()) {
        return Errno(ENOENT);
    }
    auto slot = TRY(task.fds().reserve(task.rlimit(RLIMIT_NOFILE)));
    auto file = TRY(task.container().ipc().mqueue().open_queue(task, name, flags, mode,
                                                               given ? &wanted : nullptr));
    return std::move(slot).install(std::move(file), CloseOnExec::kYes);
}

Status sys_mq_unlink(Task& task, UserPtr<const char> user_name) {
    const std::string name = TRY(task.copy_in_path(user_name));
    if (name.empty()) {
        return Errno(ENOENT);
    }
    return task.container().ipc().mqueue().unlink_queue(task, name);
}

Result<int64_t> sys_mq_timedsend(Task& task, Fd fd, GuestAddr data, size_t size, uint32_t priority,
                                 UserPtr<const timespec> user_deadline) {
    const Deadline deadline = TRY(copy_in_deadline(task, user_deadline));
    if (priority >= kMostPriority) {
        return Errno(EINVAL);
    }
    const RefPtr<File> file = TRY(task.fds().get(fd));
    MessageQueue* const queue = TRY(message_queue_of(*file));
    if (!file->writable()) {
        return Errno(EBADF);
    }
    if (size > queue->message_bytes()) {
        return Errno(EMSGSIZE);
    }
    auto message = TRY(IpcMessage::create(priority, size));
    TRY(task.copy_in_bytes(message->bytes.data(), data, size));
    return queue->send(task, std::move(message), !file->nonblocking(), deadline);
}

Result<int64_t> sys_mq_timedreceive(Task& task, Fd fd, GuestAddr data, size_t size,
                                    UserPtr<uint32_t> priority,
                                    UserPtr<const timespec> user_deadline) {
    const Deadline deadline = TRY(copy_in_deadline(task, user_deadline));
    const RefPtr<File> file = TRY(task.fds().get(fd));
    MessageQueue* const queue = TRY(message_queue_of(*file));
    if (!file->readable()) {
        return Errno(EBADF);
    }
    return queue->receive(task, size, {to_integer(data), to_integer(priority.address())}, deliver,
                          !file->nonblocking(), deadline);
}

Status sys_mq_notify(Task& task, Fd fd, GuestAddr event) {
    MqueueNotify wish;
    const bool given = to_integer(event) != 0;
    if (given) {
        const UserSigevent wanted = TRY(task.copy_in(UserPtr<const UserSigevent>(event)));
        switch (wanted.notify) {
            case SIGEV_NONE:
                break;
            case SIGEV_SIGNAL:
                if (wanted.signal < 0 || wanted.signal > kSignalCount) {
                    return Errno(EINVAL);
                }
                break;
            case SIGEV_THREAD:
                // The C library's thread would read a cookie from a netlink socket.
                return unsupported("mq_notify SIGEV_THREAD", ENOSYS);
            default:
                return Errno(EINVAL);
        }
        wish = {wanted.notify, wanted.signal, wanted.value};
    }
    const RefPtr<File> file = TRY(task.fds().get(fd));
    MessageQueue* const queue = TRY(message_queue_of(*file));
    return queue->notify(task, given ? &wish : nullptr);
}

Status sys_mq_getsetattr(Task& task, Fd fd, UserPtr<const mq_attr> wanted, UserPtr<mq_attr> old) {
    mq_attr change{};
    if (wanted) {
        change = TRY(task.copy_in(wanted));
        if ((change.mq_flags & ~static_cast<long>(O_NONBLOCK)) != 0) {
            return Errno(EINVAL);
        }
    }
    const RefPtr<File> file = TRY(task.fds().get(fd));
    MessageQueue* const queue = TRY(message_queue_of(*file));
    mq_attr now = queue->attributes_now();
    now.mq_flags = file->flags() & O_NONBLOCK;
    if (wanted) {
        file->set_flags((file->flags() & ~static_cast<uint32_t>(O_NONBLOCK)) |
                        static_cast<uint32_t>(change.mq_flags));
    }
    return old ? task.copy_out(old, now) : Status();
}

}  // namespace moat::kernel
