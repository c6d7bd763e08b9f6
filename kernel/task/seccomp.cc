// seccomp(2): what a task's filters say of a call, carried out. Linux: kernel/seccomp.c.

#include "kernel/task/seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/syscall.h>

#include <algorithm>

#include "kernel/fs/dev/kernel_log.h"
#include "kernel/task/seccomp_filter.h"
#include "kernel/task/task.h"
#include "kernel/task/task_life.h"
#include "kernel/task/task_run.h"
#include "kernel/task/task_signals.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

namespace {

constexpr int kSysSeccomp = 1;  // SYS_SECCOMP, asm-generic/siginfo.h
constexpr uint32_t kLargestErrno = 4095;

/// As the kernel's audit messages look, for those who read dmesg.
void log_action(const Task& task, uint32_t action, int signal) {
    const SyscallArguments& call = task.arguments();
    kernel_log(
        "audit: type=1326 uid=%u gid=%u pid=%d comm=\"%s\" sig=%d arch=%x syscall=%llu "
        "ip=0x%llx code=0x%x",
        task.credentials()->uid, task.credentials()->gid, task.pid(), task.name().c_str(), signal,
        AUDIT_ARCH_X86_64, static_cast<unsigned long long>(call.number),
        static_cast<unsigned long long>(call.ip), action);
}

bool strict_mode_allows(uint64_t number) {
    return number == SYS_read || number == SYS_write || number == SYS_exit ||
           number == SYS_rt_sigreturn;
}

bool is_alone(const ThreadGroup& group) {
    MutexLock lock(task_table_mutex());
    return group.tasks().size() == 1;
}

/// The handler's siginfo: which call, where from, and the filter's data in si_errno.
void send_trap(Task& task, uint32_t data) {
    const SyscallArguments& call = task.arguments();
    SignalInfo info;
    info.signo = SIGSYS;
    info.code = kSysSeccomp;
    info.error = static_cast<int32_t>(data);
    const uint64_t address = call.ip;
    const auto number = static_cast<int32_t>(call.number);
    const uint32_t arch = AUDIT_ARCH_X86_64;
    memcpy(info.raw, &address, sizeof address);
    memcpy(info.raw + 8, &number, sizeof number);
    memcpy(info.raw + 12, &arch, sizeof arch);
    task.registers().rax = call.number;  // syscall_rollback()
    force_signal(task, info);
    TaskRunner::return_to_guest(task);
}

}  // namespace

bool seccomp_admits(Task& task) {
    const SyscallArguments& call = task.arguments();
    if (task.seccomp_mode() == SECCOMP_MODE_STRICT) {
        if (strict_mode_allows(call.number)) {
            return true;
        }
        log_action(task, SECCOMP_RET_KILL_THREAD, SIGKILL);
        TaskLife::exit_task(task, SIGKILL);
        return false;
    }
    const SeccompFilter* filter = task.seccomp_filter();
    if (filter == nullptr) {
        return true;
    }
    seccomp_data data{};
    data.nr = static_cast<int>(call.number);
    data.arch = AUDIT_ARCH_X86_64;
    data.instruction_pointer = call.ip;
    std::copy(std::begin(call.value), std::end(call.value), data.args);
    bool wants_log = false;
    const uint32_t result = filter->verdict(data, &wants_log);
    const uint32_t action = result & SECCOMP_RET_ACTION_FULL;
    const uint32_t value = result & SECCOMP_RET_DATA;
    switch (action) {
        case SECCOMP_RET_ALLOW:
            return true;
        case SECCOMP_RET_LOG:
            if (!task.in_stub()) {  // once for a call that is served twice
                log_action(task, action, 0);
            }
            return true;
        case SECCOMP_RET_TRAP:
            if (!task.in_stub()) {
                TaskRunner::redo_in_stub(task);
                return false;
            }
            if (wants_log) {
                log_action(task, action, SIGSYS);
            }
            send_trap(task, value);
            return false;
        case SECCOMP_RET_ERRNO:
            if (wants_log) {
                log_action(task, action, 0);
            }
            // A plain value: a filter may choose a number that means something to us.
            TaskRunner::complete(task, -static_cast<int64_t>(std::min(value, kLargestErrno)));
            return false;
        case SECCOMP_RET_TRACE:
        case SECCOMP_RET_USER_NOTIF:
            // Nobody traces and nobody listens.
            TaskRunner::complete(task, int64_t{-ENOSYS});
            return false;
        case SECCOMP_RET_KILL_THREAD:
            log_action(task, action, SIGSYS);
            if (!is_alone(task.group())) {
                TaskLife::exit_task(task, SIGSYS);
                return false;
            }
            break;
        default:  // KILL_PROCESS, and what no action is
            log_action(task, action, SIGSYS);
            break;
    }
    TaskLife::exit_group(task, SIGSYS);
    return false;
}

void Task::set_seccomp(int mode, RefPtr<const SeccompFilter> filter) {
    MutexLock lock(mu_);
    std::swap(seccomp_owner_, filter);
    seccomp_filter_.store(seccomp_owner_.get(), std::memory_order_release);
    seccomp_mode_.store(mode, std::memory_order_release);
    lock.unlock();
}

void Task::inherit_seccomp(const Task& parent) {
    RefPtr<const SeccompFilter> filter;
    {
        MutexLock lock(parent.mu_);
        filter = parent.seccomp_owner_;
    }
    set_seccomp(parent.seccomp_mode(), std::move(filter));
}

}  // namespace moat::kernel
