#pragma once

#include <sys/resource.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <string>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/control/plan.h"
#include "kernel/task/container.h"
#include "kernel/task/signal.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

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
    /// The first thread once it has ended, until the process is waited for: a zombie's face. Null
    /// before.
    RefPtr<Task> ended_leader() const;
    ProcessGroup* process_group() const { return process_group_.get(); }
    Session* session() const;
    State state() const { return state_.load(std::memory_order_relaxed); }

    /// getrlimit(2)/setrlimit(2), 0 <= resource < RLIM_NLIMITS.
    rlimit limit(int resource) const;
    void set_limit(int resource, rlimit limit);

    /// CPU time used so far by its host process, in nanoseconds; kept when it has ended.
    uint64_t cpu_ns() const;
    uint64_t children_cpu_ns() const { return children_cpu_ns_; }
    /// Told when a signal was queued for it or one of its threads: signalfd, rt_sigtimedwait.
    WaitQueue& signal_events() { return signal_events_; }
    WaitQueue& exited() { return exited_; }
    uint64_t pending_set() const;

    // task_signals.cc
    SignalAction action(int signal) const;
    SignalAction set_action(int signal, const SignalAction& action);
    void reset_actions();
    /// Whether a signal from outside went unheard for want of a handler; true once.
    bool take_unheard(int signal);
    /// `task` has to end: the group ends, or another thread execs.
    bool is_exiting_for(const Task& task) const;
    /// Marks the group as ending; the first status stays. Its tasks are the caller's to poke.
    void begin_exit(int status);

  private:
    friend class Task;
    friend class TaskRunner;
    friend class TaskLife;
    friend class SignalControl;
    friend class PidNamespace;
    friend class TaskTable;

    int32_t pid_ = 0;              // immutable once the group is public
    RefPtr<Container> container_;  // immutable; it may be destroyed while processes still end

    // The task table's lock
    ThreadGroup* parent_ = nullptr;  // null: a container's init or an exec'ed process
    int32_t parent_tid_ = 0;         // the parent's thread that forked it (__WNOTHREAD)
    std::list<RefPtr<ThreadGroup>> children_;
    std::vector<RefPtr<Task>> tasks_;
    RefPtr<Task> ended_leader_;
    RefPtr<ProcessGroup> process_group_;
    int exit_signal_ = SIGCHLD;
    int wait_status_ = 0;      // as wait4(2) stores it
    bool has_execed_ = false;  // setpgid(2): EACCES on a child that has
    bool is_subreaper_ = false;
    std::function<void(int wait_status)> on_exit_;  // instead of a parent; called without locks
    uint64_t cpu_ns_ = 0;                           // of ended threads and, for a zombie, all of it
    uint64_t children_cpu_ns_ = 0;

    std::atomic<State> state_{State::kRunning};
    std::atomic<bool> vfork_pending_{false};  // the parent sleeps until exec or exit
    WaitQueue vfork_done_;
    WaitQueue child_events_;  // wait4(2) of this group sleeps here
    WaitQueue thread_exits_;  // execve(2) waits here for the other threads
    WaitQueue exited_;        // EPOLLIN once it is a zombie: pidfds

    mutable Mutex<LockRank::kSignal> signal_mu_;
    RefPtr<SignalActions> actions_ GUARDED_BY(signal_mu_);
    PendingSignals pending_ GUARDED_BY(signal_mu_);
    uint64_t unheard_ GUARDED_BY(signal_mu_) = 0;  // from outside, to an init without a handler yet
    bool stopping_ GUARDED_BY(signal_mu_) = false;  // tasks hold in return_to_guest
    int stop_report_ GUARDED_BY(signal_mu_) = 0;    // signal wait4(WUNTRACED) has yet to tell
    bool continue_report_ GUARDED_BY(signal_mu_) = false;
    std::atomic<bool> group_exit_{false};  // set under the signal lock, read without it
    int group_exit_status_ GUARDED_BY(signal_mu_) = 0;
    std::atomic<Task*> exec_task_{nullptr};  // all others have to end; as group_exit_
    WaitQueue signal_events_;                // signalfd and sigtimedwait look again

    mutable Mutex<LockRank::kTask> limits_mu_;
    std::array<rlimit, RLIM_NLIMITS> limits_ GUARDED_BY(limits_mu_);
};

/// setpgid(2); a job of a shell.
class ProcessGroup final : public RefCounted {
  public:
    ProcessGroup(PidNamespace& pids, int32_t id, RefPtr<Session> session);
    ~ProcessGroup() override;
    int32_t id() const { return id_; }
    Session& session() const { return *session_; }

  private:
    friend class TaskTable;
    friend class TaskLife;
    friend class PidNamespace;
    void last_unref() override;
    int32_t id_;
    RefPtr<Session> session_;  // a reference: a session lives as long as a group of it
    PidNamespace* pids_;
    std::vector<ThreadGroup*> members_;  // task table's lock
};

/// setsid(2). The terminal's lock guards which terminal it has (tty.h).
class Session final : public RefCounted {
  public:
    Session(PidNamespace& pids, int32_t id);
    ~Session() override;
    int32_t id() const { return id_; }

  private:
    friend class TaskTable;
    friend class PidNamespace;
    void last_unref() override;
    int32_t id_;
    PidNamespace* pids_;
    RefPtr<Tty> tty_;                  // task table's lock
    RefPtr<ProcessGroup> foreground_;  // task table's lock; null: none
};

/// Takes a pending signal in `wanted` of the task or its group, as signalfd(2) does. False: none.
bool take_signal(Task& task, uint64_t wanted, SignalInfo& info);
/// Pending signals of the task and its group, blocked ones too.
uint64_t pending_signals(Task& task);

// ---------------------------------------------------------------- signals from the kernel's parts
// All of these take the locks they need; none may be held but those of a lower rank than
// kTaskTable.

/// Sends to one thread. 0 is a signal that only asks whether there is somebody.
Status send_signal(Task& target, const SignalInfo& info);
/// Sends to a process: any thread that does not block it.
Status send_signal(ThreadGroup& target, const SignalInfo& info);
/// Sends to every process of a group; ESRCH when it is empty.
Status send_signal(ProcessGroup& target, const SignalInfo& info);

}  // namespace moat::kernel
