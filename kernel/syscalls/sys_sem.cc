#include <sys/sem.h>

#include "kernel/ipc/ipc_namespace.h"
#include "kernel/syscalls/handlers_ipc.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/block.h"
#include "kernel/task/container.h"
#include "kernel/task/task.h"
#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

namespace {

constexpr int kStatAny = 20;  // SEM_STAT_ANY
constexpr int32_t kMostUndo = 32767;

SemTable& table_of(const Task& task) { return task.container().ipc().sem(); }

Result<int64_t> operate(Task& task, int32_t id, UserPtr<const sembuf> operations, uint32_t count,
                        Deadline deadline) {
    if (count < 1 || id < 0) {
        return Errno(EINVAL);
    }
    if (count > table_of(task).limits().operations) {
        return Errno(E2BIG);
    }
    return table_of(task).operate(task, id, TRY(task.copy_in_array(operations, count)), deadline);
}

/// IPC_INFO and SEM_INFO (Linux: ipc/sem.c, include/uapi/linux/sem.h's constants).
Result<int64_t> info(Task& task, int command, GuestAddr buffer) {
    const SemTable& table = table_of(task);
    const auto& limits = table.limits();
    const auto now = table_of(task).info();
    struct seminfo info {};
    info.semmni = static_cast<int>(limits.sets);
    info.semmns = static_cast<int>(limits.total);
    info.semmsl = static_cast<int>(limits.per_set);
    info.semopm = static_cast<int>(limits.operations);
    info.semvmx = SemTable::kMostValue;
    info.semmnu = info.semmap = info.semmns;
    info.semume = static_cast<int>(limits.operations);
    info.semusz = 20;
    info.semaem = kMostUndo;
    if (command == SEM_INFO) {
        info.semusz = static_cast<int>(now.sets);
        info.semaem = static_cast<int>(now.semaphores);
    }
    TRY(task.copy_out(UserPtr<struct seminfo>(buffer), info));
    return now.highest;
}

}  // namespace

Result<int32_t> sys_semget(Task& task, int32_t key, int32_t count, uint32_t flags) {
    return table_of(task).get(task, key, count, flags);
}

Result<int64_t> sys_semop(Task& task, int32_t id, UserPtr<const sembuf> operations,
                          uint32_t count) {
    return operate(task, id, operations, count, Deadline::never());
}

Result<int64_t> sys_semtimedop(Task& task, int32_t id, UserPtr<const sembuf> operations,
                               uint32_t count, UserPtr<const timespec> timeout) {
    if (!timeout) {
        return operate(task, id, operations, count, Deadline::never());
    }
    const timespec t = TRY(task.copy_in(timeout));
    if (!is_valid(t)) {
        return Errno(EINVAL);
    }
    return operate(task, id, operations, count, Deadline::after(to_ns(t)));
}

Result<int64_t> sys_semctl(Task& task, int32_t id, int32_t number, int command, uint64_t argument) {
    if (id < 0) {
        return Errno(EINVAL);
    }
    SemTable& table = table_of(task);
    const GuestAddr buffer{argument};
    switch (command) {
        case IPC_INFO:
        case SEM_INFO:
            return info(task, command, buffer);
        case IPC_STAT:
        case SEM_STAT:
        case kStatAny: {
            const auto by = command == IPC_STAT   ? SemTable::By::kId
                            : command == SEM_STAT ? SemTable::By::kIndex
                                                  : SemTable::By::kIndexAny;
            const auto status = TRY(table.stat(task, id, by));
            TRY(task.copy_out(UserPtr<semid_ds>(buffer), status.ds));
            return command == IPC_STAT ? 0 : status.id;
        }
        case IPC_SET: {
            const semid_ds wanted = TRY(task.copy_in(UserPtr<const semid_ds>(buffer)));
            TRY(table.set(task, id, wanted));
            return 0;
        }
        case IPC_RMID:
            TRY(table.remove(task, id));
            return 0;
        case GETALL: {
            const auto values = TRY(table.values(task, id));
            TRY(task.copy_out_bytes(buffer, values.data(), values.size() * sizeof(uint16_t)));
            return 0;
        }
        case SETALL: {
            const size_t count = TRY(table.size(task, id, 0222));
            const auto values = TRY(task.copy_in_array(UserPtr<const uint16_t>(buffer), count));
            TRY(table.set_values(task, id, values));
            return 0;
        }
        case SETVAL:
            TRY(table.set_value(task, id, number, static_cast<int32_t>(argument)));
            return 0;
        case GETVAL:
            return table.ask(task, id, number, SemTable::Ask::kValue);
        case GETPID:
            return table.ask(task, id, number, SemTable::Ask::kPid);
        case GETNCNT:
            return table.ask(task, id, number, SemTable::Ask::kWaitForMore);
        case GETZCNT:
            return table.ask(task, id, number, SemTable::Ask::kWaitForZero);
        default:
            return Errno(EINVAL);
    }
}

}  // namespace moat::kernel
