#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/fd_table.h"
#include "kernel/fs/namei.h"
#include "kernel/task/container.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

/// clone(2)'s arguments, whichever call they came by.
struct CloneArguments {
    uint64_t flags = 0;
    int exit_signal = 0;
    uint64_t stack = 0;  ///< new stack pointer; 0: as it is
    UserPtr<int32_t> parent_tid;
    UserPtr<int32_t> child_tid;
    uint64_t tls = 0;
};

/// A process that the control server starts: a container's init, or an exec.
struct SpawnArguments {
    RefPtr<Container> container;
    std::vector<std::string> arguments;
    std::vector<std::string> environment;
    CredentialsRef credentials;
    RefPtr<FsContext> fs;
    RefPtr<FdTable> fds;
    std::vector<std::pair<int, rlimit>> limits;
    /// Run when the task exists, before its image is looked for: opens its standard streams.
    std::function<Status(Task&)> prepare;
    RefPtr<Tty> terminal;  ///< becomes the controlling terminal, with the process in its foreground
    bool is_init = false;
    /// Told once, without locks, from any thread.
    std::function<void(int wait_status)> on_exit;
};

/// What wait4(2) and waitid(2) report of a child.
struct WaitResult {
    int32_t pid = 0;
    uint32_t uid = 0;
    int code = 0;         ///< CLD_EXITED...
    int status = 0;       ///< si_status
    int wait_status = 0;  ///< as wait4(2) stores it
    uint64_t cpu_ns = 0;
};

/// Births and deaths of tasks.
class TaskLife {
  public:
    static Result<int64_t> clone(Task& task, const CloneArguments& arguments);
    static Result<int64_t> exec(Task& task, DirFd dirfd, const std::string& path,
                                std::vector<std::string> arguments,
                                std::vector<std::string> environment, int flags);
    /// Made but not running: its image is loaded, errors are known. start() lets it run.
    static Result<RefPtr<ThreadGroup>> spawn(SpawnArguments arguments);
    static void start(ThreadGroup& group);
    /// The calling task ends, the others of its group go on; the last one ends the group.
    static void exit_task(Task& task, int status);
    /// All of the group's tasks end; `status` as wait4(2) tells it.
    static void exit_group(Task& task, int status);
    /// From outside: SIGKILL's way.
    static void kill_group(ThreadGroup& group, int status);
    /// The host process died under its tasks.
    static void host_process_died(platform::HostProcess& process, int wait_status);
    /// waitid(2)'s idtype and options. `report` copies out what was found (all zero: WNOHANG and
    /// nothing) and gives the call's result.
    static Result<int64_t> wait(Task& task, int idtype, int32_t id, int options,
                                std::function<Result<int64_t>(Task&, const WaitResult&)> report);

  private:
    friend class TaskRunner;
    static void finish_group(RefPtr<ThreadGroup> group);
    static void notify_parent(ThreadGroup& group);
    static void reap(ThreadGroup& group);
    static Result<WaitResult> look_for_child(Task& task, int idtype, int32_t id, int options);
    static Result<int64_t> clone_thread(Task& task, const CloneArguments& arguments);
    static Result<int64_t> clone_process(Task& task, const CloneArguments& arguments);
    static RefPtr<Task> make_task(RefPtr<ThreadGroup> group, Task& parent, int32_t tid);
    /// What the group's processors have taken in `mm`, which it alone uses and is about to leave.
    static void keep_cpu_time(ThreadGroup& group, const AddressSpace& mm);
    static void inherit_fpu(const Task& parent, Task& child, const platform::HostThread& thread);
};

}  // namespace moat::kernel
