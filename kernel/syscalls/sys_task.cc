// Processes and threads: clone(2), execve(2), exit(2), wait4(2) and the calls on ids.

#include <asm/prctl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>

#include "kernel/fs/proc/task_view.h"
#include "kernel/syscalls/handlers.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/futex.h"
#include "kernel/task/pidfd.h"
#include "kernel/task/task_life.h"
#include "kernel/task/task_signals.h"
#include "kernel/task/task_table.h"
#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

// ---------------------------------------------------------------- birth

Result<int64_t> sys_clone(Task& task, uint64_t flags, uint64_t stack, UserPtr<int32_t> parent_tid,
                          UserPtr<int32_t> child_tid, uint64_t tls) {
    CloneArguments arguments;
    arguments.exit_signal = static_cast<int>(flags & CSIGNAL);
    arguments.flags = flags & ~uint64_t{CSIGNAL};
    arguments.stack = stack;
    arguments.parent_tid = parent_tid;
    arguments.child_tid = child_tid;
    arguments.tls = tls;
    return TaskLife::clone(task, arguments);
}

Result<int64_t> sys_fork(Task& task) {
    CloneArguments arguments;
    arguments.exit_signal = SIGCHLD;
    return TaskLife::clone(task, arguments);
}

Result<int64_t> sys_vfork(Task& task) {
    CloneArguments arguments;
    arguments.exit_signal = SIGCHLD;
    arguments.flags = CLONE_VM | CLONE_VFORK;
    return TaskLife::clone(task, arguments);
}

// ---------------------------------------------------------------- exec

namespace {

constexpr size_t kMaxStrings = 1 << 16;
constexpr size_t kMaxStringBytes = 6 << 20;       // as Linux: at most 3/4 of 8 MiB
constexpr size_t kMaxOneString = 32 * kPageSize;  // MAX_ARG_STRLEN

Result<std::vector<std::string>> copy_in_strings(Task& task,
                                                 UserPtr<const UserPtr<const char>> array,
                                                 size_t& budget) {
    std::vector<std::string> strings;
    if (array.is_null()) {
        return strings;
    }
    for (size_t i = 0;; i++) {
        if (i == kMaxStrings) {
            return Errno(E2BIG);
        }
        const auto pointer = TRY(task.copy_in(array.cast<const uint64_t>().at(i)));
        if (pointer == 0) {
            return strings;
        }
        strings.push_back(
            TRY(task.copy_in_string(UserPtr<const char>(pointer), kMaxOneString, Errno(E2BIG))));
        const size_t size = strings.back().size() + 1 + sizeof(uint64_t);
        if (size > budget) {
            return Errno(E2BIG);
        }
        budget -= size;
    }
}

}  // namespace

Result<int64_t> sys_execveat(Task& task, DirFd dirfd, UserPtr<const char> path,
                             UserPtr<const UserPtr<const char>> arguments,
                             UserPtr<const UserPtr<const char>> environment, int flags) {
    if ((flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) != 0) {
        return Errno(EINVAL);
    }
    const std::string name = TRY(task.copy_in_path(path));
    size_t budget = kMaxStringBytes;
    auto argv = TRY(copy_in_strings(task, arguments, budget));
    auto envp = TRY(copy_in_strings(task, environment, budget));
    if (argv.empty()) {
        argv.emplace_back();  // Linux 5.18: an empty argv becomes {""}
    }
    return TaskLife::exec(task, dirfd, name, std::move(argv), std::move(envp), flags);
}

Result<int64_t> sys_execve(Task& task, UserPtr<const char> path,
                           UserPtr<const UserPtr<const char>> arguments,
                           UserPtr<const UserPtr<const char>> environment) {
    return sys_execveat(task, kCwd, path, arguments, environment, 0);
}

// ---------------------------------------------------------------- end

Result<int64_t> sys_exit(Task& task, int code) {
    TaskLife::exit_task(task, (code & 0xff) << 8);
    return kNoReturn;
}

Result<int64_t> sys_exit_group(Task& task, int code) {
    TaskLife::exit_group(task, (code & 0xff) << 8);
    return kNoReturn;
}

namespace {

struct rusage usage_of(const WaitResult& result) {
    struct rusage usage {};
    usage.ru_utime.tv_sec = static_cast<time_t>(result.cpu_ns / 1'000'000'000);
    usage.ru_utime.tv_usec = static_cast<suseconds_t>(result.cpu_ns / 1000 % 1'000'000);
    return usage;
}

}  // namespace

Result<int64_t> sys_wait4(Task& task, int32_t pid, UserPtr<int32_t> status, int options,
                          UserPtr<struct rusage> usage) {
    constexpr int kAllowed = WNOHANG | WUNTRACED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL;
    if ((options & ~kAllowed) != 0) {
        return Errno(EINVAL);
    }
    int idtype = P_PID;
    int32_t id = pid;
    if (pid == INT32_MIN) {
        return Errno(ESRCH);
    }
    if (pid == -1) {
        idtype = P_ALL;
    } else if (pid <= 0) {
        idtype = P_PGID;
        id = -pid;
    }
    return TaskLife::wait(
        task, idtype, id,
        (options & ~WUNTRACED) | WEXITED | ((options & WUNTRACED) != 0 ? WSTOPPED : 0),
        [status, usage](Task& t, const WaitResult& result) -> Result<int64_t> {
            if (result.code == 0) {
                return 0;
            }
            if (status) {
                TRY(t.copy_out(status, result.wait_status));
            }
            if (usage) {
                TRY(t.copy_out(usage, usage_of(result)));
            }
            return result.pid;
        });
}

Result<int64_t> sys_waitid(Task& task, int idtype, int32_t id, UserPtr<SignalInfo> info,
                           int options, UserPtr<struct rusage> usage) {
    constexpr int kAllowed =
        WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL;
    if ((options & ~kAllowed) != 0 || (options & (WEXITED | WSTOPPED | WCONTINUED)) == 0) {
        return Errno(EINVAL);
    }
    bool never_waits = false;
    switch (idtype) {
        case P_ALL:
            break;
        case P_PID:
            if (id <= 0) {
                return Errno(EINVAL);
            }
            break;
        case P_PGID:
            if (id < 0) {
                return Errno(EINVAL);
            }
            break;
        case P_PIDFD: {
            if (id < 0) {
                return Errno(EINVAL);
            }
            const RefPtr<File> file = TRY(task.fds().get(Fd{id}));
            const RefPtr<ThreadGroup> target = TRY(process_of_pidfd(*file));
            if (&target->pid_namespace() != &task.pid_namespace() ||
                target->state() == ThreadGroup::State::kReaped) {
                return Errno(ECHILD);
            }
            idtype = P_PID;
            id = target->pid();
            never_waits = (options & WNOHANG) == 0 && file->nonblocking();
            options |= never_waits ? WNOHANG : 0;
            break;
        }
        default:
            return Errno(EINVAL);
    }
    return TaskLife::wait(
        task, idtype, id, options,
        [info, usage, never_waits](Task& t, const WaitResult& result) -> Result<int64_t> {
            if (never_waits && result.code == 0) {
                return Errno(EAGAIN);
            }
            if (info) {
                SignalInfo report;
                if (result.code != 0) {
                    report.signo = SIGCHLD;
                    report.code = result.code;
                    report.process.pid = result.pid;
                    report.process.uid = result.uid;
                    report.process.status = result.status;
                }
                TRY(t.copy_out(info, report));
            }
            if (usage && result.code != 0) {
                TRY(t.copy_out(usage, usage_of(result)));
            }
            return 0;
        });
}

// ---------------------------------------------------------------- ids

Result<int64_t> sys_getpid(Task& task) { return task.pid(); }

Result<int64_t> sys_gettid(Task& task) { return task.tid(); }

Result<int64_t> sys_getppid(Task& task) { return TaskTable::parent_pid(task.group()); }

namespace {

Result<RefPtr<ThreadGroup>> group_named(Task& task, int32_t pid) {
    if (pid == 0) {
        return RefPtr<ThreadGroup>(&task.group());
    }
    // A thread's number names its process here (kernel/sys.c uses find_task_by_vpid).
    if (const RefPtr<Task> other = task.pid_namespace().find_task(pid)) {
        return RefPtr<ThreadGroup>(&other->group());
    }
    auto group = task.pid_namespace().find_group(pid);
    if (!group) {
        return Errno(ESRCH);
    }
    return group;
}

}  // namespace

Result<int64_t> sys_getpgrp(Task& task) { return sys_getpgid(task, 0); }

Result<int64_t> sys_getpgid(Task& task, int32_t pid) {
    const auto group = TRY(group_named(task, pid));
    const auto process_group = TaskTable::process_group_of(*group);
    if (!process_group) {
        return Errno(ESRCH);
    }
    return process_group->id();
}

Result<int64_t> sys_setpgid(Task& task, int32_t pid, int32_t pgid) {
    TRY(TaskTable::set_process_group(task, pid, pgid));
    return 0;
}

Result<int64_t> sys_getsid(Task& task, int32_t pid) {
    const auto group = TRY(group_named(task, pid));
    const auto session = TaskTable::session_of(*group);
    if (!session) {
        return Errno(ESRCH);
    }
    return session->id();
}

Result<int64_t> sys_setsid(Task& task) { return TRY(TaskTable::set_session(task)); }

Result<int64_t> sys_set_tid_address(Task& task, uint64_t address) {
    task.set_clear_child_tid(address);
    return task.tid();
}

Status sys_set_robust_list(Task& task, uint64_t head, size_t size) {
    if (size != 24) {  // sizeof(struct robust_list_head)
        return Errno(EINVAL);
    }
    task.set_robust_list(head);
    return {};
}

Status sys_get_robust_list(Task& task, int32_t tid, UserPtr<uint64_t> head, UserPtr<size_t> size) {
    RefPtr<Task> target(&task);
    if (tid != 0) {
        target = task.pid_namespace().find_task(tid);
        if (!target) {
            return Errno(ESRCH);
        }
        if (!may_inspect(task, *target).ok()) {
            return Errno(EPERM);
        }
    }
    TRY(task.copy_out(size, size_t{24}));
    return task.copy_out(head, target->robust_list());
}

// ---------------------------------------------------------------- futex

Result<int64_t> sys_futex(Task& task, GuestAddr address, int operation, uint32_t value,
                          uint64_t timeout, GuestAddr second, uint32_t value3) {
    const int command = operation & FUTEX_CMD_MASK;
    const bool is_private = (operation & FUTEX_PRIVATE_FLAG) != 0;
    switch (command) {
        case FUTEX_WAIT:
        case FUTEX_WAIT_BITSET: {
            int64_t deadline = 0;
            if (timeout != 0) {
                const auto t = TRY(task.copy_in(UserPtr<const timespec>(timeout)));
                if (t.tv_sec < 0 || t.tv_nsec < 0 || t.tv_nsec >= 1'000'000'000) {
                    return Errno(EINVAL);
                }
                deadline = to_ns(t);
                if (command == FUTEX_WAIT) {
                    deadline = Deadline::after(deadline).ns;
                } else if ((operation & FUTEX_CLOCK_REALTIME) != 0) {
                    deadline += monotonic_ns() - realtime_ns();
                }
            }
            return futex_wait(task, address, value, command == FUTEX_WAIT ? ~0u : value3,
                              is_private, deadline, timeout != 0);
        }
        case FUTEX_WAKE:
            return futex_wake(task, address, static_cast<int>(value), ~0u, is_private);
        case FUTEX_WAKE_BITSET:
            return futex_wake(task, address, static_cast<int>(value), value3, is_private);
        case FUTEX_REQUEUE:
            return futex_requeue(task, address, second, static_cast<int>(value),
                                 static_cast<int>(timeout), nullptr, is_private);
        case FUTEX_CMP_REQUEUE:
            return futex_requeue(task, address, second, static_cast<int>(value),
                                 static_cast<int>(timeout), &value3, is_private);
        case FUTEX_WAKE_OP:
            return futex_wake_op(task, address, second, static_cast<int>(value),
                                 static_cast<int>(timeout), value3, is_private);
        case FUTEX_LOCK_PI:
        case FUTEX_LOCK_PI2: {
            Deadline deadline = Deadline::never();
            if (timeout != 0) {
                const auto t = TRY(task.copy_in(UserPtr<const timespec>(timeout)));
                if (t.tv_sec < 0 || t.tv_nsec < 0 || t.tv_nsec >= 1'000'000'000) {
                    return Errno(EINVAL);
                }
                // The old command knows but one clock.
                const bool real =
                    command == FUTEX_LOCK_PI || (operation & FUTEX_CLOCK_REALTIME) != 0;
                deadline = Deadline::at(
                    monotonic_deadline(real ? CLOCK_REALTIME : CLOCK_MONOTONIC, to_ns(t)));
            }
            return futex_lock_pi(task, address, is_private, MayBlock::kYes, deadline);
        }
        case FUTEX_TRYLOCK_PI:
            return futex_lock_pi(task, address, is_private, MayBlock::kNo, Deadline::never());
        case FUTEX_UNLOCK_PI:
            return futex_unlock_pi(task, address, is_private);
        default:
            return unsupported("futex requeue with priority inheritance", ENOSYS);
    }
}

// ---------------------------------------------------------------- prctl

Result<int64_t> sys_prctl(Task& task, int option, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    switch (option) {
        case PR_SET_NAME: {
            char name[16] = {};
            for (size_t i = 0; i < 15; i++) {
                name[i] = TRY(task.copy_in(UserPtr<const char>(a + i)));
                if (name[i] == 0) {
                    break;
                }
            }
            task.set_name(name);
            return 0;
        }
        case PR_GET_NAME: {
            char name[16] = {};
            const std::string current = task.name();
            memcpy(name, current.data(), std::min<size_t>(current.size(), 15));
            TRY(task.copy_out_bytes(GuestAddr{a}, name, sizeof name));
            return 0;
        }
        case PR_SET_PDEATHSIG:
            if (a > kSignalCount) {
                return Errno(EINVAL);
            }
            task.set_parent_death_signal(static_cast<int32_t>(a));
            return 0;
        case PR_GET_PDEATHSIG:
            TRY(task.copy_out(UserPtr<int32_t>(a), task.parent_death_signal()));
            return 0;
        case PR_SET_DUMPABLE:
            if (a > 1) {
                return Errno(EINVAL);
            }
            task.set_dumpable(a == 1);
            return 0;
        case PR_GET_DUMPABLE:
            return task.dumpable() ? 1 : 0;
        case PR_SET_CHILD_SUBREAPER:
            TaskTable::set_subreaper(task.group(), a != 0);
            return 0;
        case PR_GET_CHILD_SUBREAPER:
            TRY(task.copy_out(UserPtr<int32_t>(a), TaskTable::is_subreaper(task.group()) ? 1 : 0));
            return 0;
        case PR_SET_TIMERSLACK:
            return 0;  // our timers have none
        case PR_GET_TIMERSLACK:
            return 50'000;
        case PR_GET_TIMING:
            return PR_TIMING_STATISTICAL;
        case PR_SET_THP_DISABLE:
            return (b | c | d) != 0 ? Result<int64_t>(Errno(EINVAL)) : Result<int64_t>(0);
        case PR_GET_THP_DISABLE:
            return 0;
        case PR_SET_VMA:
            // Names of anonymous mappings are for tools only.
            return 0;
        case PR_GET_SECCOMP:
            return task.seccomp_mode();
        case PR_SET_SECCOMP:
            return prctl_set_seccomp(task, a, b);
        case PR_GET_TID_ADDRESS:
            TRY(task.copy_out(UserPtr<uint64_t>(a), task.clear_child_tid()));
            return 0;
        default: {
            const uint64_t arguments[4] = {a, b, c, d};
            if (const auto result = prctl_credentials(task, option, arguments)) {
                return *result;
            }
            return unsupported("prctl option", EINVAL);
        }
    }
}

Result<int64_t> sys_arch_prctl(Task& task, int option, uint64_t address) {
    switch (option) {
        case ARCH_SET_FS:
        case ARCH_SET_GS:
            // A number only: the host checks it. The stub keeps its own state in neither.
            return kContinueOnHost;
        case ARCH_GET_FS:
        case ARCH_GET_GS: {
            if (!task.in_stub()) {
                return kNeedStub;
            }
            const auto& r = task.registers();
            TRY(task.copy_out(UserPtr<uint64_t>(address),
                              option == ARCH_GET_FS ? r.fs_base : r.gs_base));
            return 0;
        }
        default:
            return Errno(EINVAL);
    }
}

}  // namespace moat::kernel
