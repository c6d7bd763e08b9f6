#pragma once

// What proc, sysinfo(2) and getrusage(2) know of tasks: snapshots put together from the process
// tree, address spaces and the host.

#include <cstdint>
#include <string>
#include <vector>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/mm/address_space.h"
#include "kernel/task/credentials.h"
#include "kernel/task/task.h"
#include "kernel/task/task_table.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

class Tty;

struct CpuTimes {
    uint64_t user_ns = 0;
    uint64_t system_ns = 0;
};
/// Of all threads, ended ones too. The host tells only the sum: it stands as user time, because the
/// sentry does a guest's system time.
CpuTimes cpu_times(const ThreadGroup& group);
/// Of one thread.
CpuTimes cpu_times(Task& task);
/// Of children that were waited for.
CpuTimes children_cpu_times(const ThreadGroup& group);

struct MemoryView {
    uint64_t total = 0;
    uint64_t free = 0;      ///< total less what guests' processes have resident
    uint64_t resident = 0;  ///< of the guests' processes
};
/// As a container's processes see it: no more than the container may have.
MemoryView memory_view(const PidNamespace& pids, const Container& container);
/// The machine's CPUs that a container's processes may run on, bit N being CPU N, as far as 64 bits
/// go.
uint64_t visible_cpus(const Container& container);
/// Those of them that a task asked for; all, when none of what it asked for is left (cpuset(7)).
uint64_t allowed_cpus(const Task& task);
/// "0-2,5".
std::string cpu_list(uint64_t mask);
uint64_t resident_bytes(Task& task);
size_t count_tasks(const PidNamespace& pids);

/// A task as stat and status show it. Fields of one moment each, not of one moment together.
struct TaskView {
    int32_t tid = 0, pid = 0, parent = 0, group = 0, session = 0;
    RefPtr<Tty> terminal;
    int32_t foreground = -1;
    char state = 'S';
    std::string name;
    size_t threads = 0;
    int64_t start_ns = 0;  ///< since boot
    MemoryUsage memory;
    CredentialsRef credentials;
    uint64_t pending = 0, blocked = 0, ignored = 0, caught = 0;
    size_t descriptors = 0;
    uint32_t umask = 022;
    int32_t nice = 0;
    bool zombie = false;
};
TaskView view_of(Task& task);

/// Whether `reader` may look into `target` (ptrace(2), "Ptrace access mode checking"): the same
/// user and groups, or CAP_SYS_PTRACE. EACCES.
Status may_inspect(Task& reader, Task& target);

}  // namespace moat::kernel
