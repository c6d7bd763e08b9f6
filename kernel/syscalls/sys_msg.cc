#include <sys/msg.h>

#include <algorithm>

#include "kernel/ipc/ipc_namespace.h"
#include "kernel/syscalls/handlers_ipc.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/container.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr int kStatAny = 13;  // MSG_STAT_ANY

MsgTable& table_of(const Task& task) { return task.container().ipc().msg(); }

Result<int64_t> deliver(Task& task, uint64_t address, const IpcMessage& message, size_t size) {
    const UserPtr<int64_t> type(address);
    const size_t n = std::min(size, message.bytes.size());
    TRY(task.copy_out(type, message.type));
    TRY(task.copy_out_bytes(type.address() + sizeof(int64_t), message.bytes.data(), n));
    return static_cast<int64_t>(n);
}

/// IPC_INFO and MSG_INFO (Linux: ipc/msg.c:msgctl_info()).
Result<int64_t> info(Task& task, int command, GuestAddr buffer) {
    const auto& limits = table_of(task).limits();
    const auto now = table_of(task).info();
    struct msginfo info {};
    info.msgmni = static_cast<int>(limits.queues);
    info.msgmax = static_cast<int>(limits.message_bytes);
    info.msgmnb = static_cast<int>(limits.queue_bytes);
    info.msgssz = 16;
    info.msgseg = 0xffff;
    if (command == MSG_INFO) {
        info.msgpool = static_cast<int>(now.queues);
        info.msgmap = static_cast<int>(std::min<uint64_t>(now.messages, INT32_MAX));
        info.msgtql = static_cast<int>(std::min<uint64_t>(now.bytes, INT32_MAX));
    } else {
        info.msgpool = info.msgmni * info.msgmnb / 1024;
        info.msgmap = info.msgmnb;
        info.msgtql = info.msgmnb;
    }
    TRY(task.copy_out(UserPtr<struct msginfo>(buffer), info));
    return now.highest;
}

}  // namespace

Result<int32_t> sys_msgget(Task& task, int32_t key, uint32_t flags) {
    return table_of(task).get(task, key, flags);
}

Result<int64_t> sys_msgsnd(Task& task, int32_t id, UserPtr<const int64_t> message, size_t size,
                           uint32_t flags) {
    const int64_t type = TRY(task.copy_in(message));
    if (size > table_of(task).limits().message_bytes || id < 0 || type < 1) {
        return Errno(EINVAL);
    }
    auto copy = TRY(IpcMessage::create(type, size));
    TRY(task.copy_in_bytes(copy->bytes.data(), message.address() + sizeof(int64_t), size));
    return table_of(task).send(task, id, std::move(copy), flags);
}

Result<int64_t> sys_msgrcv(Task& task, int32_t id, UserPtr<int64_t> message, size_t size,
                           int64_t type, uint32_t flags) {
    if (id < 0 || static_cast<int64_t>(size) < 0) {
        return Errno(EINVAL);
    }
    if ((flags & MSG_COPY) != 0 && ((flags & MSG_EXCEPT) != 0 || (flags & IPC_NOWAIT) == 0)) {
        return Errno(EINVAL);
    }
    return table_of(task).receive(task, id, {type, flags, size}, to_integer(message.address()),
                                  deliver);
}

Result<int64_t> sys_msgctl(Task& task, int32_t id, int command, GuestAddr buffer) {
    if (id < 0 || command < 0) {
        return Errno(EINVAL);
    }
    MsgTable& table = table_of(task);
    switch (command) {
        case IPC_INFO:
        case MSG_INFO:
            return info(task, command, buffer);
        case IPC_STAT:
        case MSG_STAT:
        case kStatAny: {
            const auto by = command == IPC_STAT   ? MsgTable::By::kId
                            : command == MSG_STAT ? MsgTable::By::kIndex
                                                  : MsgTable::By::kIndexAny;
            const auto status = TRY(table.stat(task, id, by));
            TRY(task.copy_out(UserPtr<msqid_ds>(buffer), status.ds));
            return command == IPC_STAT ? 0 : status.id;
        }
        case IPC_SET: {
            const msqid_ds wanted = TRY(task.copy_in(UserPtr<const msqid_ds>(buffer)));
            TRY(table.set(task, id, wanted));
            return 0;
        }
        case IPC_RMID:
            TRY(table.remove(task, id));
            return 0;
        default:
            return Errno(EINVAL);
    }
}

}  // namespace moat::kernel
