#include "kernel/fs/proc/task_view.h"

#include <linux/capability.h>

#include "kernel/fs/fd_table.h"
#include "kernel/fs/proc/machine.h"
#include "kernel/fs/tty/tty.h"
#include "kernel/platform/kick_watch.h"
#include "kernel/task/container.h"
#include "kernel/task/fs_context.h"

namespace moat::kernel {

CpuTimes cpu_times(const ThreadGroup& group) { return {group.cpu_ns(), 0}; }

CpuTimes cpu_times(Task& task) {
    if (TaskTable::tasks_of(task.group()).size() == 1) {
        return cpu_times(task.group());
    }
    const RefPtr<platform::HostThread> thread = task.thread_ref();
    return {thread ? platform::thread_cpu_ns(*thread) : 0, 0};
}

CpuTimes children_cpu_times(const ThreadGroup& group) { return {group.children_cpu_ns(), 0}; }

uint64_t resident_bytes(Task& task) {
    const auto mm = task.mm_ref();
    return mm ? mm->usage().resident_bytes : 0;
}

size_t count_tasks(const PidNamespace& pids) { return pids.task_count(); }

uint64_t visible_cpus(const Container& container) {
    const uint32_t cpus = machine().cpus;
    const uint64_t all = cpus >= 64 ? ~0ull : (1ull << cpus) - 1;
    const uint64_t allowed = container.cpu_mask() & all;
    return allowed != 0 ? allowed : all;
}

uint64_t allowed_cpus(const Task& task) {
    const uint64_t visible = visible_cpus(task.container());
    const uint64_t allowed = task.scheduling.affinity & visible;
    return allowed != 0 ? allowed : visible;
}

MemoryView memory_view(const PidNamespace& pids, const Container& container) {
    MemoryView view;
    view.total = machine().memory_bytes;
    if (const uint64_t own = *container.limits().memory_bytes; own != 0) {
        view.total = std::min(view.total, own);
    }
    for (const auto& group : pids.groups()) {
        const auto tasks = TaskTable::tasks_of(*group);
        if (!tasks.empty()) {
            view.resident += resident_bytes(*tasks.front());
        }
    }
    view.free = view.total > view.resident ? view.total - view.resident : 0;
    return view;
}

TaskView view_of(Task& task) {
    TaskView v;
    ThreadGroup& group = task.group();
    v.tid = task.tid();
    v.pid = group.pid();
    v.parent = TaskTable::parent_pid(group);
    if (const auto pg = TaskTable::process_group_of(group)) {
        v.group = pg->id();
    }
    if (const auto session = TaskTable::session_of(group)) {
        v.session = session->id();
        v.terminal = TaskTable::controlling_tty(*session);
        if (v.terminal) {
            const auto foreground = TaskTable::foreground_group(*session);
            v.foreground = foreground ? foreground->id() : -1;
        }
    }
    const auto state = group.state();
    v.zombie = state == ThreadGroup::State::kZombie || state == ThreadGroup::State::kReaped;
    v.state = v.zombie ? 'Z' : task.state_letter();
    v.name = task.name();
    v.threads = std::max<size_t>(TaskTable::tasks_of(group).size(), 1);
    v.start_ns = std::max<int64_t>(task.start_time_ns() - machine().boot_monotonic_ns, 0);
    v.credentials = task.credentials();
    if (!v.credentials) {
        v.credentials = make_ref<Credentials>();
    }
    if (!v.zombie) {
        if (const auto mm = task.mm_ref()) {
            v.memory = mm->usage();
        }
        if (const auto fds = task.fds_ref()) {
            v.descriptors = fds->size();
        }
        if (const auto fs = task.fs_ref()) {
            v.umask = fs->umask();
        }
    }
    v.pending = pending_signals(task);
    v.blocked = task.signal_mask();
    for (int signal = 1; signal <= kSignalCount; signal++) {
        const uint64_t handler = group.action(signal).handler;
        v.ignored |= handler == 1 ? signal_bit(signal) : 0;
        v.caught |= handler > 1 ? signal_bit(signal) : 0;
    }
    v.nice = task.scheduling.nice;
    return v;
}

Status may_inspect(Task& reader, Task& target) {
    if (&reader.group() == &target.group()) {
        return {};
    }
    const auto mine = reader.credentials();
    const auto theirs = target.credentials();
    if (!theirs || mine->has_capability(CAP_SYS_PTRACE)) {
        return {};
    }
    const bool same = mine->fsuid == theirs->uid && mine->fsuid == theirs->euid &&
                      mine->fsuid == theirs->suid && mine->fsgid == theirs->gid &&
                      mine->fsgid == theirs->egid && mine->fsgid == theirs->sgid;
    // One who has more capabilities is not to be looked into (Linux: cap_ptrace_access_check).
    return same && (theirs->permitted & ~mine->permitted) == 0 ? Status() : Errno(EACCES);
}

}  // namespace moat::kernel
