// Signals (signal(7)).

#include <linux/capability.h>
#include <signal.h>
#include <string.h>

#include "kernel/syscalls/handlers.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/container.h"
#include "kernel/task/pidfd.h"
#include "kernel/task/task_signals.h"
#include "kernel/task/task_table.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

namespace {

constexpr size_t kMaskSize = sizeof(uint64_t);
constexpr uint64_t kMinStackSize = 2048;  // MINSIGSTKSZ of the kernel

}  // namespace

Status sys_rt_sigaction(Task& task, int signal, UserPtr<const SignalAction> action,
                        UserPtr<SignalAction> old, size_t size) {
    if (size != kMaskSize || signal < 1 || signal > kSignalCount) {
        return Errno(EINVAL);
    }
    SignalAction previous;
    if (action) {
        if ((signal_bit(signal) & kUnblockable) != 0) {
            return Errno(EINVAL);
        }
        previous = set_signal_action(task, signal, TRY(task.copy_in(action)));
    } else {
        previous = signal_action(task.group(), signal);
    }
    if (old) {
        TRY(task.copy_out(old, previous));
    }
    return {};
}

Status sys_rt_sigprocmask(Task& task, int how, UserPtr<const uint64_t> set, UserPtr<uint64_t> old,
                          size_t size) {
    if (size != kMaskSize) {
        return Errno(EINVAL);
    }
    const uint64_t previous = task.signal_mask();
    if (set) {
        const uint64_t given = TRY(task.copy_in(set));
        uint64_t mask = previous;
        switch (how) {
            case SIG_BLOCK:
                mask |= given;
                break;
            case SIG_UNBLOCK:
                mask &= ~given;
                break;
            case SIG_SETMASK:
                mask = given;
                break;
            default:
                return Errno(EINVAL);
        }
        if ((mask & ~kUnblockable) != previous) {
            set_signal_mask(task, mask);
        }
    }
    if (old) {
        TRY(task.copy_out(old, previous));
    }
    return {};
}

Result<int64_t> sys_rt_sigreturn(Task& task) {
    if (!task.in_stub()) {
        return kNeedStub;
    }
    if (!pop_signal_frame(task).ok()) {
        SignalInfo info = SignalInfo::from_kernel(SIGSEGV);
        force_signal(task, info);
    }
    return kNoReturn;  // the registers are what they have to be
}

Status sys_rt_sigpending(Task& task, UserPtr<uint64_t> set, size_t size) {
    if (size > kMaskSize) {
        return Errno(EINVAL);
    }
    const uint64_t pending = pending_signals(task) & task.signal_mask();
    return task.copy_out_bytes(set.address(), &pending, size);
}

Result<int64_t> sys_rt_sigtimedwait(Task& task, UserPtr<const uint64_t> set,
                                    UserPtr<SignalInfo> info, UserPtr<const timespec> timeout,
                                    size_t size) {
    if (size != kMaskSize) {
        return Errno(EINVAL);
    }
    const uint64_t wanted = TRY(task.copy_in(set)) & ~kUnblockable;
    Deadline deadline = Deadline::never();
    if (timeout) {
        const auto t = TRY(task.copy_in(timeout));
        if (t.tv_sec < 0 || t.tv_nsec < 0 || t.tv_nsec >= 1'000'000'000) {
            return Errno(EINVAL);
        }
        deadline = Deadline::after(to_ns(t));
    }
    const auto attempt = [&task, wanted, info]() -> Result<int64_t> {
        SignalInfo taken;
        if (!take_signal(task, wanted, taken)) {
            return Errno(EAGAIN);
        }
        if (info) {
            TRY(task.copy_out(info, taken));
        }
        return taken.signo;
    };
    return attempt_or_block(task, {&task.group().signal_events(), EPOLLIN},
                            deadline.ns > monotonic_ns(), deadline, Errno(EINTR), attempt);
}

Result<int64_t> sys_rt_sigsuspend(Task& task, UserPtr<const uint64_t> mask, size_t size) {
    if (size != kMaskSize) {
        return Errno(EINVAL);
    }
    task.set_temporary_mask(TRY(task.copy_in(mask)));
    return sys_pause(task);
}

Result<int64_t> sys_pause(Task& task) {
    return block(task, {}, Deadline::never(), [](Task&, Wake wake) -> Result<int64_t> {
        return wake == Wake::kInterrupted ? kRestartNoHand : kBlocked;
    });
}

// Our restarts run the call itself again; nothing leads here but a guest's own wish.
Result<int64_t> sys_restart_syscall(Task&) { return Errno(EINTR); }

Result<int64_t> sys_sigaltstack(Task& task, UserPtr<const UserSignalStack> stack,
                                UserPtr<UserSignalStack> old) {
    const AlternateStack current = task.alternate_stack();
    const bool armed = (current.flags & SS_DISABLE) == 0 && current.size != 0;
    bool on_it = false;
    if (armed && (current.flags & kAutoDisarm) == 0) {
        // Whether the caller runs on it is seen from its registers only.
        if (!task.in_stub()) {
            return kNeedStub;
        }
        const uint64_t sp = task.registers().rsp;
        on_it = sp > current.base && sp - current.base <= current.size;
    }
    const UserSignalStack report{
        current.base,
        static_cast<int32_t>((armed ? on_it ? SS_ONSTACK : 0 : SS_DISABLE) |
                             (current.flags & kAutoDisarm)),
        0, current.size};
    if (stack) {
        const auto given = TRY(task.copy_in(stack));
        if (on_it) {
            return Errno(EPERM);
        }
        const uint32_t flags = static_cast<uint32_t>(given.flags);
        const uint32_t mode = flags & ~kAutoDisarm;
        if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0) {
            return Errno(EINVAL);
        }
        AlternateStack next;
        if (mode == SS_DISABLE) {
            next.flags = flags;
        } else {
            if (given.size < kMinStackSize) {
                return Errno(ENOMEM);
            }
            next = {given.base, flags & kAutoDisarm, given.size};
        }
        task.set_alternate_stack(next);
    }
    if (old) {
        TRY(task.copy_out(old, report));
    }
    return 0;
}

// ---------------------------------------------------------------- sending

namespace {

// kernel/signal.c:check_kill_permission
bool may_signal(Task& sender, ThreadGroup& target, int signal) {
    const RefPtr<Task> leader = target.leader();
    if (!leader || &sender.group() == &target) {
        return true;
    }
    const CredentialsRef from = sender.credentials();
    const CredentialsRef to = leader->credentials();
    if (from->euid == to->suid || from->euid == to->uid || from->uid == to->suid ||
        from->uid == to->uid || from->has_capability(CAP_KILL)) {
        return true;
    }
    return signal == SIGCONT &&
           TaskTable::session_of(sender.group()) == TaskTable::session_of(target);
}

SignalInfo info_from(Task& task, int signal, int code) {
    return SignalInfo::from_process(signal, code, task.pid(), task.credentials()->uid);
}

Status signal_group(Task& task, ThreadGroup& target, const SignalInfo& info) {
    if (!may_signal(task, target, info.signo)) {
        return Errno(EPERM);
    }
    return send_signal(target, info);
}

}  // namespace

Status sys_kill(Task& task, int32_t pid, int signal) {
    if (signal < 0 || signal > kSignalCount) {
        return Errno(EINVAL);
    }
    SignalInfo info = info_from(task, signal, SI_USER);
    if (pid > 0) {
        RefPtr<ThreadGroup> target = task.pid_namespace().find_group(pid);
        if (!target) {
            const RefPtr<Task> thread = task.pid_namespace().find_task(pid);
            if (!thread) {
                return Errno(ESRCH);
            }
            target = RefPtr<ThreadGroup>(&thread->group());
        }
        return signal_group(task, *target, info);
    }
    std::vector<RefPtr<ThreadGroup>> targets;
    if (pid == -1) {
        for (auto& group : task.pid_namespace().groups()) {
            if (group->pid() != 1 && group.get() != &task.group() &&
                group->state() < ThreadGroup::State::kZombie) {
                targets.push_back(std::move(group));
            }
        }
    } else {
        const RefPtr<ProcessGroup> group =
            pid == 0 ? TaskTable::process_group_of(task.group())
                     : task.pid_namespace().find_process_group(pid == INT32_MIN ? 0 : -pid);
        if (!group) {
            return Errno(ESRCH);
        }
        targets = TaskTable::members_of(*group);
    }
    // kill(2): a success for one is a success.
    bool any = false;
    Status last = Errno(ESRCH);
    for (const auto& target : targets) {
        last = signal_group(task, *target, info);
        any = any || last.ok();
    }
    return any ? Status() : last;
}

Status sys_tgkill(Task& task, int32_t pid, int32_t tid, int signal) {
    if (tid <= 0 || pid <= 0) {
        return Errno(EINVAL);
    }
    const RefPtr<Task> target = task.pid_namespace().find_task(tid);
    if (!target || target->pid() != pid) {
        return Errno(ESRCH);
    }
    if (signal < 0 || signal > kSignalCount) {
        return Errno(EINVAL);
    }
    if (!may_signal(task, target->group(), signal)) {
        return Errno(EPERM);
    }
    return send_signal(*target, info_from(task, signal, SI_TKILL));
}

Status sys_tkill(Task& task, int32_t tid, int signal) {
    if (tid <= 0) {
        return Errno(EINVAL);
    }
    const RefPtr<Task> target = task.pid_namespace().find_task(tid);
    if (!target) {
        return Errno(ESRCH);
    }
    return sys_tgkill(task, target->pid(), tid, signal);
}

namespace {

// rt_sigqueueinfo(2): nobody may pretend to be the kernel or kill(2), except to itself.
Result<SignalInfo> queued_info(Task& task, int32_t pid, int signal,
                               UserPtr<const SignalInfo> user) {
    SignalInfo info = TRY(task.copy_in(user));
    info.signo = signal;
    if ((info.code >= 0 || info.code == SI_TKILL) && task.pid() != pid) {
        return Errno(EPERM);
    }
    if (signal < 0 || signal > kSignalCount) {
        return Errno(EINVAL);
    }
    return info;
}

}  // namespace

Status sys_rt_sigqueueinfo(Task& task, int32_t pid, int signal, UserPtr<const SignalInfo> user) {
    const SignalInfo info = TRY(queued_info(task, pid, signal, user));
    const RefPtr<ThreadGroup> target = task.pid_namespace().find_group(pid);
    if (!target) {
        return Errno(ESRCH);
    }
    return signal_group(task, *target, info);
}

Status sys_pidfd_send_signal(Task& task, Fd fd, int signal, UserPtr<const SignalInfo> user,
                             uint32_t flags) {
    if (flags != 0) {
        return Errno(EINVAL);
    }
    const RefPtr<File> file = TRY(task.fds().get(fd));
    const RefPtr<ThreadGroup> target = TRY(process_of_pidfd(*file));
    if (&target->pid_namespace() != &task.pid_namespace()) {
        return Errno(EINVAL);  // Linux: access_pidfd_pidns()
    }
    if (target->state() == ThreadGroup::State::kReaped) {
        return Errno(ESRCH);
    }
    SignalInfo info =
        SignalInfo::from_process(signal, SI_USER, task.pid(), task.credentials()->uid);
    if (signal < 0 || signal > kSignalCount) {
        return Errno(EINVAL);
    }
    if (user) {
        info = TRY(task.copy_in(user));
        if (info.signo != signal) {
            return Errno(EINVAL);
        }
        // Nobody may pretend to be the kernel or kill(2), except to itself.
        if ((info.code >= 0 || info.code == SI_TKILL) && target.get() != &task.group()) {
            return Errno(EPERM);
        }
    }
    return signal_group(task, *target, info);
}

Status sys_rt_tgsigqueueinfo(Task& task, int32_t pid, int32_t tid, int signal,
                             UserPtr<const SignalInfo> user) {
    if (pid <= 0 || tid <= 0) {
        return Errno(EINVAL);
    }
    const SignalInfo info = TRY(queued_info(task, pid, signal, user));
    const RefPtr<Task> target = task.pid_namespace().find_task(tid);
    if (!target || target->pid() != pid) {
        return Errno(ESRCH);
    }
    if (!may_signal(task, target->group(), signal)) {
        return Errno(EPERM);
    }
    return send_signal(*target, info);
}

}  // namespace moat::kernel
