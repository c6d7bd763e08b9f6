#pragma once

// Handlers of System V IPC and POSIX message queues. Included by handlers.h.

#include <mqueue.h>
#include <sys/sem.h>
#include <time.h>

#include <cstdint>

#include "kernel/base/result.h"
#include "kernel/fs/fd_table.h"
#include "kernel/mm/user_ptr.h"

namespace moat::kernel {

class Task;

// sys_shm.cc
Result<int32_t> sys_shmget(Task& task, int32_t key, size_t size, uint32_t flags);
Result<int64_t> sys_shmat(Task& task, int32_t id, uint64_t address, uint32_t flags);
Result<int64_t> sys_shmdt(Task& task, uint64_t address);
Result<int64_t> sys_shmctl(Task& task, int32_t id, int command, GuestAddr buffer);

// sys_sem.cc
Result<int32_t> sys_semget(Task& task, int32_t key, int32_t count, uint32_t flags);
Result<int64_t> sys_semop(Task& task, int32_t id, UserPtr<const sembuf> operations, uint32_t count);
Result<int64_t> sys_semtimedop(Task& task, int32_t id, UserPtr<const sembuf> operations,
                               uint32_t count, UserPtr<const timespec> timeout);
Result<int64_t> sys_semctl(Task& task, int32_t id, int32_t number, int command, uint64_t argument);

// sys_msg.cc
Result<int32_t> sys_msgget(Task& task, int32_t key, uint32_t flags);
Result<int64_t> sys_msgsnd(Task& task, int32_t id, UserPtr<const int64_t> message, size_t size,
                           uint32_t flags);
Result<int64_t> sys_msgrcv(Task& task, int32_t id, UserPtr<int64_t> message, size_t size,
                           int64_t type, uint32_t flags);
Result<int64_t> sys_msgctl(Task& task, int32_t id, int command, GuestAddr buffer);

// sys_mqueue.cc
Result<Fd> sys_mq_open(Task& task, UserPtr<const char> name, uint32_t flags, uint32_t mode,
                       UserPtr<const mq_attr> attributes);
Status sys_mq_unlink(Task& task, UserPtr<const char> name);
Result<int64_t> sys_mq_timedsend(Task& task, Fd fd, GuestAddr data, size_t size, uint32_t priority,
                                 UserPtr<const timespec> deadline);
Result<int64_t> sys_mq_timedreceive(Task& task, Fd fd, GuestAddr data, size_t size,
                                    UserPtr<uint32_t> priority, UserPtr<const timespec> deadline);
Status sys_mq_notify(Task& task, Fd fd, GuestAddr event);
Status sys_mq_getsetattr(Task& task, Fd fd, UserPtr<const mq_attr> wanted, UserPtr<mq_attr> old);

}  // namespace moat::kernel
