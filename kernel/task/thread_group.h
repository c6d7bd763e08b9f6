#pragma once

#include <sys/resource.h>

#include <array>
#include <cstdint>
#include <list>
#include <string>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/control/plan.h"
#include "kernel/task/signal.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

class Container;
class PidNamespace;
class ProcessGroup;
class Session;
class Task;
class Tty;

/// What signals do; shared by CLONE_SIGHAND (Linux: struct sighand_struct), which here, as on Linux
/// with threads, is the same as sharing the thread group except for vfork-like clones.
class SignalActions : public RefCounted {
  public:
    std::array<SignalAction, kSignalCount + 1> actions{};
};

/// A guest process (Linux: struct signal_struct and the leader's task_struct).
class ThreadGroup final : public RefCounted {
  public:
    enum class State : uint8_t { kRunning, kStopped, kExiting, kZombie, kReaped };

    int32_t pid() const { return pid_; }
    Container& container() const { return *container_; }
    PidNamespace& pid_namespace() const;

    // The process tree: guarded by the task table's lock (task_table.h)
    ThreadGroup* parent() const { return parent_; }
    const std::list<RefPtr<ThreadGroup>>& children() const { return children_; }
    const std::vector<RefPtr<Task>>& tasks() const { return tasks_; }
    RefPtr<Task> leader() const;
    ProcessGroup* process_group() const { return process_group_.get(); }
    Session* session() const;
    State state() const { return state_.load(std::memory_order_relaxed); }

    /// getrlimit(2)/setrlimit(2), 0 <= resource < RLIM_NLIMITS.
    rlimit limit(int resource) const;
    void set_limit(int resource, rlimit limit);

    std::string executable_name() const;

  private:
    friend class Task;
    friend class TaskTable;
    friend class TaskRunner;
    friend class TaskLife;
    friend class SignalControl;
    friend class PidNamespace;

    int32_t pid_ = 0;                        // immutable once the group is public
    Container* container_ = nullptr;         // immutable
    ThreadGroup* parent_ = nullptr;
    std::list<RefPtr<ThreadGroup>> children_;
    std::vector<RefPtr<Task>> tasks_;
    RefPtr<ProcessGroup> process_group_;
    std::atomic<State> state_{State::kRunning};
    int exit_signal_ = SIGCHLD;
    int wait_status_ = 0;                    // as wait4(2) stores it
    bool has_execed_ = false;                // setpgid(2): EACCES on a child that has
    bool is_subreaper_ = false;
    bool vfork_pending_ = false;             // the parent sleeps until exec or exit
    WaitQueue vfork_done_;
    WaitQueue child_events_;                 // wait4(2) of this group sleeps here

    mutable Mutex<LockRank::kSignal> signal_mu_;
    RefPtr<SignalActions> actions_ GUARDED_BY(signal_mu_);
    PendingSignals pending_ GUARDED_BY(signal_mu_);
    bool stop_reported_ GUARDED_BY(signal_mu_) = false;
    int stop_signal_ GUARDED_BY(signal_mu_) = 0;
    bool continued_ GUARDED_BY(signal_mu_) = false;
    bool group_exit_ GUARDED_BY(signal_mu_) = false;
    int group_exit_status_ GUARDED_BY(signal_mu_) = 0;
    Task* exec_task_ GUARDED_BY(signal_mu_) = nullptr;

    mutable Mutex<LockRank::kTask> limits_mu_;
    std::array<rlimit, RLIM_NLIMITS> limits_ GUARDED_BY(limits_mu_);

    uint64_t children_cpu_ns_ = 0;
};

/// setpgid(2); a job of a shell.
class ProcessGroup final : public RefCounted {
  public:
    ProcessGroup(int32_t id, RefPtr<Session> session);
    ~ProcessGroup() override;
    int32_t id() const { return id_; }
    Session& session() const { return *session_; }

  private:
    friend class TaskTable;
    int32_t id_;
    RefPtr<Session> session_;
    std::vector<ThreadGroup*> members_;  // task table's lock
};

/// setsid(2). The terminal's lock guards which terminal it has (tty.h).
class Session final : public RefCounted {
  public:
    explicit Session(int32_t id) : id_(id) {}
    ~Session() override;
    int32_t id() const { return id_; }

  private:
    friend class TaskTable;
    friend class Tty;
    int32_t id_;
    RefPtr<Tty> tty_;                      // task table's lock
    RefPtr<ProcessGroup> foreground_;      // task table's lock; null: none
};

// ---------------------------------------------------------------- signals from the kernel's parts
// All of these take the locks they need; none may be held but those of a lower rank than kTaskTable.

/// Sends to one thread.
Status send_signal(Task& target, const SignalInfo& info);
/// Sends to a process: any thread that does not block it.
Status send_signal(ThreadGroup& target, const SignalInfo& info);
/// Sends to every process of a group; ESRCH when it is empty.
Status send_signal(ProcessGroup& target, const SignalInfo& info);

}  // namespace moat::kernel
