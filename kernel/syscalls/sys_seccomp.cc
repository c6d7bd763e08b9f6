// seccomp(2) and prctl(PR_SET_SECCOMP). Linux: kernel/seccomp.c.

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include <vector>

#include "kernel/syscalls/handlers_misc.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/direct_calls.h"
#include "kernel/task/seccomp_filter.h"
#include "kernel/task/task.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

namespace {

constexpr uint32_t kKnownFlags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG |
                                 SECCOMP_FILTER_FLAG_SPEC_ALLOW | SECCOMP_FILTER_FLAG_NEW_LISTENER |
                                 SECCOMP_FILTER_FLAG_TSYNC_ESRCH |
                                 SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

/// struct sock_fprog.
struct Program {
    uint16_t length;
    uint64_t instructions;
};
static_assert(sizeof(Program) == 16);

RefPtr<const SeccompFilter> filter_of(const Task& task) {
    // Its owner is locked out by the task table's lock, which everybody who replaces it holds.
    return RefPtr<const SeccompFilter>(task.seccomp_filter());
}

Result<int64_t> set_strict(Task& task, uint32_t flags, uint64_t argument) {
    if (flags != 0 || argument != 0) {
        return Errno(EINVAL);
    }
    MutexLock lock(task_table_mutex());
    if (task.seccomp_mode() == SECCOMP_MODE_FILTER) {
        return Errno(EINVAL);
    }
    task.set_seccomp(SECCOMP_MODE_STRICT, nullptr);
    lock.unlock();
    review_direct_calls(task);
    return 0;
}

/// TSYNC: the first thread whose filters are not among the caller's, or 0.
int32_t thread_in_the_way_locked(const Task& task) {
    const SeccompFilter* mine = task.seccomp_filter();
    for (const auto& other : task.group().tasks()) {
        if (other.get() == &task || other->seccomp_mode() == 0) {
            continue;
        }
        const SeccompFilter* theirs = other->seccomp_filter();
        const bool below = theirs == nullptr || (mine != nullptr && mine->is_above(theirs));
        if (other->seccomp_mode() != SECCOMP_MODE_FILTER || !below) {
            return other->tid();
        }
    }
    return 0;
}

void give_to_others_locked(Task& task) {
    const RefPtr<const SeccompFilter> filter = filter_of(task);
    const bool no_new_privs = task.credentials()->no_new_privs;
    for (const auto& other : task.group().tasks()) {
        if (other.get() == &task) {
            continue;
        }
        other->set_seccomp(SECCOMP_MODE_FILTER, filter);
        if (no_new_privs && !other->credentials()->no_new_privs) {
            auto next = other->credentials()->clone();
            next->no_new_privs = true;
            other->set_credentials(std::move(next));
        }
    }
}

Result<int64_t> set_filter(Task& task, uint32_t flags, uint64_t argument) {
    if ((flags & ~kKnownFlags) != 0) {
        return Errno(EINVAL);
    }
    const bool listens = (flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) != 0;
    if ((listens && (flags & SECCOMP_FILTER_FLAG_TSYNC) != 0 &&
         (flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH) == 0) ||
        ((flags & SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) != 0 && !listens)) {
        return Errno(EINVAL);
    }
    const Program program = TRY(task.copy_in(UserPtr<const Program>(argument)));
    if (program.length == 0 || program.length > BPF_MAXINSNS) {
        return Errno(EINVAL);
    }
    if (!task.credentials()->no_new_privs && !task.has_capability(CAP_SYS_ADMIN)) {
        return Errno(EACCES);
    }
    const auto instructions =
        TRY(task.copy_in_array(UserPtr<const sock_filter>(program.instructions), program.length));
    if (listens) {
        return unsupported("seccomp SECCOMP_FILTER_FLAG_NEW_LISTENER", EINVAL);
    }
    const auto log =
        (flags & SECCOMP_FILTER_FLAG_LOG) != 0 ? SeccompFilter::Log::kYes : SeccompFilter::Log::kNo;
    // Filters of all threads stand still meanwhile, births of threads too.
    MutexLock lock(task_table_mutex());
    if (task.seccomp_mode() == SECCOMP_MODE_STRICT) {
        return Errno(EINVAL);
    }
    auto filter = TRY(SeccompFilter::create(instructions, filter_of(task), log));
    if ((flags & SECCOMP_FILTER_FLAG_TSYNC) != 0) {
        if (const int32_t tid = thread_in_the_way_locked(task); tid != 0) {
            if ((flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH) != 0) {
                return Errno(ESRCH);
            }
            return tid;
        }
    }
    task.set_seccomp(SECCOMP_MODE_FILTER, std::move(filter));
    if ((flags & SECCOMP_FILTER_FLAG_TSYNC) != 0) {
        give_to_others_locked(task);
    }
    lock.unlock();
    review_direct_calls(task);  // of the address space: the other threads', too
    return 0;
}

Result<int64_t> is_action_available(Task& task, uint32_t flags, uint64_t argument) {
    if (flags != 0) {
        return Errno(EINVAL);
    }
    switch (TRY(task.copy_in(UserPtr<const uint32_t>(argument)))) {
        case SECCOMP_RET_KILL_PROCESS:
        case SECCOMP_RET_KILL_THREAD:
        case SECCOMP_RET_TRAP:
        case SECCOMP_RET_ERRNO:
        case SECCOMP_RET_TRACE:
        case SECCOMP_RET_LOG:
        case SECCOMP_RET_ALLOW:
            return 0;
        default:  // USER_NOTIF too: nobody can listen
            return Errno(EOPNOTSUPP);
    }
}

}  // namespace

Result<int64_t> sys_seccomp(Task& task, uint32_t operation, uint32_t flags, uint64_t argument) {
    switch (operation) {
        case SECCOMP_SET_MODE_STRICT:
            return set_strict(task, flags, argument);
        case SECCOMP_SET_MODE_FILTER:
            return set_filter(task, flags, argument);
        case SECCOMP_GET_ACTION_AVAIL:
            return is_action_available(task, flags, argument);
        case SECCOMP_GET_NOTIF_SIZES:
            return unsupported("seccomp SECCOMP_GET_NOTIF_SIZES", EINVAL);
        default:
            return Errno(EINVAL);
    }
}

Result<int64_t> prctl_set_seccomp(Task& task, uint64_t mode, uint64_t program) {
    switch (mode) {
        case SECCOMP_MODE_STRICT:
            return set_strict(task, 0, 0);  // the program is not looked at
        case SECCOMP_MODE_FILTER:
            return set_filter(task, 0, program);
        default:
            return Errno(EINVAL);
    }
}

}  // namespace moat::kernel
