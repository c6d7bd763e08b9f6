#pragma once

// The process tree of the sandbox: who is whose child, which groups and sessions there are, which
// number names whom. One lock guards all of it (Linux: tasklist_lock).

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

using TaskTableMutex = Mutex<LockRank::kTaskTable>;
TaskTableMutex& task_table_mutex();

/// The numbers of a container's (or a pod's) tasks, process groups and sessions
/// (pid_namespaces(7)). Every sentry task is in exactly one; namespaces do not nest.
class PidNamespace final : public RefCounted {
  public:
    static constexpr int32_t kMaxPid = 4'194'304;  ///< /proc/sys/kernel/pid_max

    /// Numbers from `first` on. Number 1 is the namespace's init: a container's first process, or
    /// the pause process of a pod (boot/pause.h).
    explicit PidNamespace(int32_t first) : next_(first) {}

    // Each takes the task table's lock; null: no such number.
    RefPtr<Task> find_task(int32_t tid) const;
    RefPtr<ThreadGroup> find_group(int32_t pid) const;
    RefPtr<ProcessGroup> find_process_group(int32_t id) const;
    RefPtr<Session> find_session(int32_t id) const;
    std::vector<RefPtr<ThreadGroup>> groups() const;
    size_t task_count() const;

  private:
    friend class TaskTable;
    friend class TaskLife;
    friend class ProcessGroup;
    friend class Session;
    int32_t take_number_locked();

    int32_t next_;
    std::map<int32_t, Task*> tasks_;
    std::map<int32_t, ThreadGroup*> groups_;
    std::map<int32_t, ProcessGroup*> process_groups_;
    std::map<int32_t, Session*> sessions_;
};

/// Operations on the tree. Functions ending in _locked need the lock.
class TaskTable {
  public:
    static std::vector<RefPtr<Task>> tasks_of(const ThreadGroup& group);
    static std::vector<RefPtr<ThreadGroup>> members_of(const ProcessGroup& group);
    static std::vector<RefPtr<ThreadGroup>> children_of(const ThreadGroup& group);
    /// 0 where the parent is outside the namespace.
    static int32_t parent_pid(const ThreadGroup& group);
    static RefPtr<ThreadGroup> parent_of(const ThreadGroup& group);
    static RefPtr<ProcessGroup> process_group_of(const ThreadGroup& group);
    static RefPtr<Session> session_of(const ThreadGroup& group);
    /// setsid(2): EPERM.
    static Result<int32_t> set_session(Task& task);
    /// setpgid(2).
    static Status set_process_group(Task& task, int32_t pid, int32_t pgid);
    /// Leaves its process group and tells groups that become orphaned by it (SIGHUP, SIGCONT when a
    /// member is stopped: POSIX, _exit).
    static void join_process_group_locked(ThreadGroup& group, RefPtr<ProcessGroup> target);
    static void leave_process_group_locked(ThreadGroup& group);
    static bool is_orphaned_locked(const ProcessGroup& group, const ThreadGroup* ignoring);

    /// prctl(2), PR_SET_CHILD_SUBREAPER.
    static void set_subreaper(ThreadGroup& group, bool subreaper);
    static bool is_subreaper(const ThreadGroup& group);

    static RefPtr<Tty> controlling_tty(Session& session);
    static void set_controlling_tty(Session& session, RefPtr<Tty> tty);
    static RefPtr<ProcessGroup> foreground_group(Session& session);
    static void set_foreground_group(Session& session, RefPtr<ProcessGroup> group);
    static RefPtr<ThreadGroup> leader_of(Session& session);
};

}  // namespace moat::kernel
