#pragma once

// Handlers of tasks, signals and memory.

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cstdint>

#include "kernel/base/result.h"
#include "kernel/fs/fd_table.h"
#include "kernel/fs/namei.h"
#include "kernel/mm/user_ptr.h"
#include "kernel/task/signal.h"

namespace moat::kernel {

class Task;

/// sigaltstack(2)'s stack_t.
struct UserSignalStack {
    uint64_t base;
    int32_t flags;
    int32_t padding;
    uint64_t size;
};

// sys_task.cc
Result<int64_t> sys_clone(Task& task, uint64_t flags, uint64_t stack, UserPtr<int32_t> parent_tid,
                          UserPtr<int32_t> child_tid, uint64_t tls);
Result<int64_t> sys_fork(Task& task);
Result<int64_t> sys_vfork(Task& task);
Result<int64_t> sys_execve(Task& task, UserPtr<const char> path,
                           UserPtr<const UserPtr<const char>> arguments,
                           UserPtr<const UserPtr<const char>> environment);
Result<int64_t> sys_execveat(Task& task, DirFd dirfd, UserPtr<const char> path,
                             UserPtr<const UserPtr<const char>> arguments,
                             UserPtr<const UserPtr<const char>> environment, int flags);
Result<int64_t> sys_exit(Task& task, int code);
Result<int64_t> sys_exit_group(Task& task, int code);

// sys_unshare.cc
Status sys_unshare(Task& task, uint64_t flags);
Result<int64_t> sys_wait4(Task& task, int32_t pid, UserPtr<int32_t> status, int options,
                          UserPtr<struct rusage> usage);
Result<int64_t> sys_waitid(Task& task, int idtype, int32_t id, UserPtr<SignalInfo> info,
                           int options, UserPtr<struct rusage> usage);
Result<int64_t> sys_getpid(Task& task);
Result<int64_t> sys_gettid(Task& task);
Result<int64_t> sys_getppid(Task& task);
Result<int64_t> sys_getpgrp(Task& task);
Result<int64_t> sys_getpgid(Task& task, int32_t pid);
Result<int64_t> sys_setpgid(Task& task, int32_t pid, int32_t pgid);
Result<int64_t> sys_getsid(Task& task, int32_t pid);
Result<int64_t> sys_setsid(Task& task);
Result<int64_t> sys_set_tid_address(Task& task, uint64_t address);
Status sys_set_robust_list(Task& task, uint64_t head, size_t size);
Status sys_get_robust_list(Task& task, int32_t tid, UserPtr<uint64_t> head, UserPtr<size_t> size);
Result<int64_t> sys_futex(Task& task, GuestAddr address, int operation, uint32_t value,
                          uint64_t timeout, GuestAddr second, uint32_t value3);
Result<int64_t> sys_prctl(Task& task, int option, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
Result<int64_t> sys_arch_prctl(Task& task, int option, uint64_t address);

// sys_signal.cc
Status sys_rt_sigaction(Task& task, int signal, UserPtr<const SignalAction> action,
                        UserPtr<SignalAction> old, size_t size);
Status sys_rt_sigprocmask(Task& task, int how, UserPtr<const uint64_t> set, UserPtr<uint64_t> old,
                          size_t size);
Result<int64_t> sys_rt_sigreturn(Task& task);
Status sys_rt_sigpending(Task& task, UserPtr<uint64_t> set, size_t size);
Result<int64_t> sys_rt_sigtimedwait(Task& task, UserPtr<const uint64_t> set,
                                    UserPtr<SignalInfo> info, UserPtr<const timespec> timeout,
                                    size_t size);
Status sys_rt_sigqueueinfo(Task& task, int32_t pid, int signal, UserPtr<const SignalInfo> info);
Status sys_rt_tgsigqueueinfo(Task& task, int32_t pid, int32_t tid, int signal,
                             UserPtr<const SignalInfo> info);
Result<int64_t> sys_rt_sigsuspend(Task& task, UserPtr<const uint64_t> mask, size_t size);
Result<int64_t> sys_pause(Task& task);
Result<int64_t> sys_restart_syscall(Task& task);
Result<int64_t> sys_sigaltstack(Task& task, UserPtr<const UserSignalStack> stack,
                                UserPtr<UserSignalStack> old);
Status sys_kill(Task& task, int32_t pid, int signal);
Status sys_pidfd_send_signal(Task& task, Fd fd, int signal, UserPtr<const SignalInfo> info,
                             uint32_t flags);
Status sys_tkill(Task& task, int32_t tid, int signal);
Status sys_tgkill(Task& task, int32_t pid, int32_t tid, int signal);

// sys_mm.cc
Result<int64_t> sys_mmap(Task& task, uint64_t address, uint64_t size, int protection, int flags,
                         Fd fd, uint64_t offset);
Result<int64_t> sys_munmap(Task& task, uint64_t address, uint64_t size);
Result<int64_t> sys_mprotect(Task& task, uint64_t address, uint64_t size, int protection);
Result<int64_t> sys_mremap(Task& task, uint64_t old_address, uint64_t old_size, uint64_t new_size,
                           uint64_t flags, uint64_t new_address);
Result<int64_t> sys_madvise(Task& task, uint64_t address, uint64_t size, int advice);
Result<int64_t> sys_msync(Task& task, uint64_t address, uint64_t size, int flags);
Result<int64_t> sys_mincore(Task& task, uint64_t address, uint64_t size, UserPtr<uint8_t> vector);
Status sys_mlock(Task& task, uint64_t address, uint64_t size);
Status sys_mlock2(Task& task, uint64_t address, uint64_t size, uint32_t flags);
Status sys_munlock(Task& task, uint64_t address, uint64_t size);
Status sys_mlockall(Task& task, int flags);
Status sys_munlockall(Task& task);
Result<int64_t> sys_brk(Task& task, uint64_t address);
Status sys_membarrier(Task& task, int command, uint32_t flags, int cpu);

// sys_pidfd.cc
Result<Fd> sys_pidfd_open(Task& task, int32_t pid, uint32_t flags);
Result<Fd> sys_pidfd_getfd(Task& task, Fd fd, Fd wanted, uint32_t flags);

}  // namespace moat::kernel
