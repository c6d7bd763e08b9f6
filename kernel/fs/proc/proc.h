#pragma once

// procfs: one instance a mount, each showing one pid namespace (proc(5)).

#include "kernel/fs/proc/task_view.h"
#include "kernel/fs/synthetic/synthetic.h"

namespace moat::kernel {

class ProcFileSystem final : public SyntheticFileSystem {
  public:
    static RefPtr<ProcFileSystem> create(RefPtr<PidNamespace> pids);

    PidNamespace& pids() const { return *pids_; }
    const RefPtr<PidNamespace>& pids_ref() const { return pids_; }
    const RefPtr<StaticDirectory>& net() const { return net_; }

  private:
    explicit ProcFileSystem(RefPtr<PidNamespace> pids);
    const RefPtr<PidNamespace> pids_;
    RefPtr<StaticDirectory> net_;  // immutable once shared
};

/// Names a task without keeping it alive: the number, and when the task was born, so that a number
/// used again is not mistaken for it.
struct TaskName {
    RefPtr<PidNamespace> pids;
    int32_t tid = 0;
    int64_t start_ns = 0;
    bool process = false;  ///< the process `tid`, seen through its leader

    /// ESRCH: it is gone.
    Result<RefPtr<Task>> find() const;
    /// An inode number for its `index`-th thing of a kind; the same every time.
    uint64_t ino(uint32_t kind, uint32_t index) const;
};
/// The task that stands for a process: its leader, or any other while that is missing.
RefPtr<Task> task_of_process(const ThreadGroup& group);

/// /proc/PID and /proc/PID/task/TID.
RefPtr<Inode> make_task_directory(ProcFileSystem& fs, TaskName name);

// What the system as a whole has to say (system.cc, sysctl.cc, net.cc); each adds to a directory.
void add_system_files(ProcFileSystem& fs, StaticDirectory& root);
void add_sysctls(ProcFileSystem& fs, StaticDirectory& sys);
void add_net_files(ProcFileSystem& fs, StaticDirectory& net);

// Texts of one task (task_text.cc). `reader` is who reads, for roots and permission.
using TaskText = Result<std::string> (*)(Task& reader, Task& target);
Result<std::string> proc_stat(Task& reader, Task& target);
Result<std::string> proc_statm(Task& reader, Task& target);
Result<std::string> proc_status(Task& reader, Task& target);
Result<std::string> proc_limits(Task& reader, Task& target);
Result<std::string> proc_cmdline(Task& reader, Task& target);
Result<std::string> proc_environ(Task& reader, Task& target);
Result<std::string> proc_auxv(Task& reader, Task& target);

/// Registers "proc". At boot.
void register_proc();

}  // namespace moat::kernel
