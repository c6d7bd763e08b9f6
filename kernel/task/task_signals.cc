#include "kernel/task/task_signals.h"

#include <sys/wait.h>

#include "kernel/base/log.h"
#include "kernel/task/container.h"
#include "kernel/task/task.h"
#include "kernel/task/task_life.h"
#include "kernel/task/task_run.h"
#include "kernel/task/task_table.h"
#include "kernel/time/process_timers.h"

namespace moat::kernel {

namespace {

constexpr uint64_t kStopSignals =
    signal_bit(SIGSTOP) | signal_bit(SIGTSTP) | signal_bit(SIGTTIN) | signal_bit(SIGTTOU);

}  // namespace

/// Everything that touches pending signals, actions and stops of a group.
class SignalControl {
  public:
    static uint64_t deliverable_locked(const Task& task) {
        return (task.pending_.set() | task.group_->pending_.set()) & ~task.signal_mask();
    }

    static bool ignored_locked(const ThreadGroup& group, int signal) {
        const uint64_t handler = group.actions_->actions[static_cast<size_t>(signal)].handler;
        if (handler == 1) {
            return true;
        }
        const DefaultAction action = default_action(signal);
        return handler == 0 &&
               (action == DefaultAction::kIgnore || action == DefaultAction::kContinue);
    }

    // Linux: kernel/signal.c:prepare_signal. What a signal does at once, blocked and ignored or
    // not.
    static void before_queueing_locked(ThreadGroup& group, int signal,
                                       const std::vector<RefPtr<Task>>& tasks, bool& continued) {
        const uint64_t bit = signal_bit(signal);
        if ((bit & kStopSignals) != 0) {
            group.pending_.discard(signal_bit(SIGCONT));
            for (const auto& t : tasks) {
                t->pending_.discard(signal_bit(SIGCONT));
            }
        } else if (signal == SIGCONT) {
            group.pending_.discard(kStopSignals);
            for (const auto& t : tasks) {
                t->pending_.discard(kStopSignals);
            }
            if (group.stopping_) {
                group.stopping_ = false;
                group.stop_report_ = 0;
                group.continue_report_ = true;
                group.state_.store(ThreadGroup::State::kRunning);
                continued = true;
            }
        }
    }

    static Status send(ThreadGroup& group, Task* target, const SignalInfo& info) {
        const int signal = info.signo;
        if (signal < 0 || signal > kSignalCount) {
            return Errno(EINVAL);
        }
        if (signal == 0) {
            return {};
        }
        const WakeScope scope;
        const std::vector<RefPtr<Task>> tasks = TaskTable::tasks_of(group);
        bool continued = false;
        RefPtr<Task> chosen;
        {
            MutexLock lock(group.signal_mu_);
            if (group.group_exit_) {
                return {};
            }
            if (const bool from_inside = info.code <= 0 && info.process.pid != 0;
                from_inside && is_protected_init(group, info) &&
                (signal == SIGKILL || signal == SIGSTOP)) {
                return {};  // pid_namespaces(7); those two have no handlers
            }
            if (signal == SIGKILL) {
                begin_group_exit_locked(group, SIGKILL);
            } else {
                before_queueing_locked(group, signal, tasks, continued);
                const uint64_t bit = signal_bit(signal);
                const auto takes = [&](const Task& t) { return (t.signal_mask() & bit) == 0; };
                if (target != nullptr) {
                    if (takes(*target)) {
                        chosen = RefPtr<Task>(target);
                    }
                } else {
                    for (const auto& t : tasks) {
                        if (takes(*t)) {
                            chosen = t;
                            break;
                        }
                    }
                }
                const bool blocked = !chosen;
                if (!blocked && ignored_locked(group, signal)) {
                    chosen = nullptr;
                } else {
                    PendingSignals& pending = target != nullptr ? target->pending_ : group.pending_;
                    if (info.signo >= 32 && pending.size() >= group_signal_limit(group)) {
                        return Errno(EAGAIN);
                    }
                    pending.add(info);
                    group.signal_events_.notify(EPOLLIN);
                }
            }
        }
        if (signal == SIGKILL) {
            poke_all(tasks);
        } else if (continued) {
            poke_all(tasks);
            notify_parent_of_state(group, CLD_CONTINUED, SIGCONT);
        } else if (chosen) {
            TaskRunner::poke(*chosen);
        }
        return {};
    }

    static size_t group_signal_limit(const ThreadGroup& group) {
        return static_cast<size_t>(
            std::min<uint64_t>(group.limit(RLIMIT_SIGPENDING).rlim_cur, 100'000));
    }

    static void poke_all(const std::vector<RefPtr<Task>>& tasks) {
        for (const auto& t : tasks) {
            TaskRunner::poke(*t);
        }
    }

    static void begin_group_exit_locked(ThreadGroup& group, int status) {
        if (!group.group_exit_) {
            group.group_exit_ = true;
            group.group_exit_status_ = status;
            group.stopping_ = false;
        }
    }

    static void notify_parent_of_state(ThreadGroup& group, int code, int signal) {
        const RefPtr<ThreadGroup> parent = TaskTable::parent_of(group);
        if (!parent) {
            return;
        }
        const uint64_t no_cldstop =
            signal_action(*parent, SIGCHLD).flags & static_cast<uint64_t>(SA_NOCLDSTOP);
        if (no_cldstop == 0) {
            SignalInfo info;
            info.signo = SIGCHLD;
            info.code = code;
            info.process.pid = group.pid();
            info.process.status = signal;
            (void)send(*parent, nullptr, info);
        }
        parent->child_events_.notify(EPOLLIN);
    }

    static void stop_locked(ThreadGroup& group, int signal) {
        group.stopping_ = true;
        group.stop_report_ = signal;
        group.state_.store(ThreadGroup::State::kStopped);
    }

    static Delivery deliver(Task& task) {
        ThreadGroup& group = *task.group_;
        for (;;) {
            SignalInfo info;
            SignalAction action;
            bool stopped_group = false;
            {
                MutexLock lock(group.signal_mu_);
                if (group_is_exiting(task)) {
                    return Delivery::kExit;
                }
                if (group.stopping_) {
                    // Until poke_now() takes the flag away; SIGCONT cannot come between, it needs
                    // the lock we hold.
                    task.stopped_.store(true);
                    return Delivery::kStop;
                }
                const uint64_t wanted = ~task.signal_mask();
                if (!task.pending_.take(wanted, info) && !group.pending_.take(wanted, info)) {
                    finish_restart(task, /*handler=*/nullptr);
                    if (!task.restore_mask_) {
                        return Delivery::kReturn;
                    }
                    task.restore_mask_ = false;
                    task.signal_mask_.store(task.saved_mask_);
                    continue;  // what the old mask lets through
                }
                SignalAction& installed = group.actions_->actions[static_cast<size_t>(info.signo)];
                action = installed;
                if (action.handler == 1) {
                    continue;
                }
                if (action.handler == 0) {
                    switch (default_action(info.signo)) {
                        case DefaultAction::kIgnore:
                        case DefaultAction::kContinue:
                            continue;
                        case DefaultAction::kStop:
                            stop_locked(group, info.signo);
                            stopped_group = true;
                            break;
                        case DefaultAction::kTerminate:
                        case DefaultAction::kCore:
                            if (is_protected_init(group, info)) {
                                // A stop may come before the program has installed its handlers: a
                                // container starts in milliseconds here. The next handler gets it.
                                if (info.code == SI_USER && info.process.pid == 0) {
                                    group.unheard_ |= signal_bit(info.signo);
                                }
                                continue;
                            }
                            break;
                    }
                } else if ((action.flags & static_cast<uint64_t>(SA_RESETHAND)) != 0) {
                    installed.handler = 0;
                }
            }
            if (stopped_group) {
                if (info.signo != SIGSTOP && orphaned(group)) {
                    MutexLock lock(group.signal_mu_);  // POSIX: nobody could continue it
                    group.stopping_ = false;
                    group.stop_report_ = 0;
                    group.state_.store(ThreadGroup::State::kRunning);
                    lock.unlock();
                    continue;
                }
                poke_all(TaskTable::tasks_of(group));
                notify_parent_of_state(group, CLD_STOPPED, info.signo);
                continue;  // and holds above
            }
            if (action.handler == 0) {
                TaskLife::exit_group(task, info.signo);
                return Delivery::kExitGroup;
            }
            finish_restart(task, &action);
            process_timers_signal_taken(group, info);
            task.restart_.resumes = false;  // the handler may make the same call
            const uint64_t old_mask = task.restore_mask_ ? task.saved_mask_ : task.signal_mask();
            if (!push_signal_frame(task, info, action, old_mask).ok()) {
                TaskLife::exit_group(task, SIGSEGV);
                return Delivery::kExitGroup;
            }
            uint64_t mask = task.signal_mask() | action.mask;
            if ((action.flags & static_cast<uint64_t>(SA_NODEFER)) == 0) {
                mask |= signal_bit(info.signo);
            }
            task.restore_mask_ = false;
            task.signal_mask_.store(mask & ~kUnblockable);
        }
    }

    // The init of a pid namespace gets only signals it has handlers for, unless from outside
    // (pid_namespaces(7)); the control server's come with si_code SI_KERNEL.
    static bool is_protected_init(const ThreadGroup& group, const SignalInfo& info) {
        return group.pid() == 1 && info.code <= 0;
    }

    static bool orphaned(ThreadGroup& group) {
        MutexLock lock(task_table_mutex());
        const ProcessGroup* pg = group.process_group_.get();
        return pg == nullptr || TaskTable::is_orphaned_locked(*pg, nullptr);
    }

    // Linux: arch/x86/kernel/signal.c:handle_signal and arch_do_signal_or_restart.
    static void finish_restart(Task& task, const SignalAction* handler) {
        if (!task.restart_.pending) {
            return;
        }
        task.restart_.pending = false;
        arch::Registers& r = task.registers_;
        if (r.rip != task.restart_.ip || static_cast<int64_t>(r.rax) != -EINTR) {
            return;  // the guest has gone elsewhere
        }
        bool again = true;
        if (handler != nullptr) {
            again = task.restart_.code == kRestartNoIntr ||
                    (task.restart_.code == kRestartSys &&
                     (handler->flags & static_cast<uint64_t>(SA_RESTART)) != 0);
        }
        if (again) {
            r.rip -= 2;
            r.rax = task.restart_.number;
            task.restart_.resumes = task.restart_.code == kRestartNoHand && !task.restart_.direct;
        }
    }
};

Delivery deliver_signals(Task& task) { return SignalControl::deliver(task); }

bool Task::has_interrupt() {
    if (!interrupt_.load()) {
        return false;
    }
    MutexLock lock(group_->signal_mu_);
    if (group_is_exiting(*this) || group_->stopping_) {
        return true;
    }
    uint64_t due = SignalControl::deliverable_locked(*this);
    while (due != 0) {
        const int signal = __builtin_ctzll(due) + 1;
        due &= due - 1;
        if (!SignalControl::ignored_locked(*group_, signal)) {
            return true;
        }
    }
    return false;
}

bool group_is_exiting(const Task& task) {
    const ThreadGroup& group = task.group();
    return group.is_exiting_for(task);
}

bool ThreadGroup::is_exiting_for(const Task& task) const {
    const Task* exec = exec_task_.load();
    return group_exit_.load() || (exec != nullptr && exec != &task);
}

void force_signal(Task& task, const SignalInfo& info) { task.force_signal(info); }

void Task::force_signal(const SignalInfo& info) {
    MutexLock lock(group_->signal_mu_);
    SignalAction& action = group_->actions_->actions[static_cast<size_t>(info.signo)];
    const uint64_t bit = signal_bit(info.signo);
    if (action.handler == 1 || (signal_mask() & bit) != 0) {
        action.handler = 0;  // it cannot be held off: it ends the process
        signal_mask_.store(signal_mask() & ~bit);
    }
    SignalInfo forced = info;
    if (group_->pid() == 1 && forced.code <= 0) {
        forced.code = SI_KERNEL;
    }
    pending_.add(forced);
    interrupt_.store(true);
}

Status set_temporary_mask(Task& task, UserPtr<const uint64_t> mask, size_t size) {
    if (mask.is_null()) {
        return {};
    }
    if (size != sizeof(uint64_t)) {
        return Errno(EINVAL);
    }
    task.set_temporary_mask(TRY(task.copy_in(mask)));
    return {};
}

void set_signal_mask(Task& task, uint64_t mask) { task.change_signal_mask(mask & ~kUnblockable); }

void Task::change_signal_mask(uint64_t mask) {
    signal_mask_.store(mask);
    interrupt_.store(true);  // something may have become deliverable: look on the way out
    MutexLock lock(group_->signal_mu_);
    if (SignalControl::deliverable_locked(*this) == 0 && !group_->stopping_ &&
        !group_is_exiting(*this)) {
        interrupt_.store(false);  // nobody can have set it since without adding a signal
    }
}

SignalAction signal_action(const ThreadGroup& group, int signal) { return group.action(signal); }

SignalAction ThreadGroup::action(int signal) const {
    MutexLock lock(signal_mu_);
    return actions_->actions[static_cast<size_t>(signal)];
}

SignalAction set_signal_action(Task& task, int signal, const SignalAction& action) {
    const SignalAction old = task.group().set_action(signal, action);
    if (action.handler > 1 && task.group().take_unheard(signal)) {
        (void)send_signal(task.group(), SignalInfo::from_process(signal, SI_USER, 0, 0));
    }
    return old;
}

bool ThreadGroup::take_unheard(int signal) {
    MutexLock lock(signal_mu_);
    const uint64_t bit = signal_bit(signal);
    return (std::exchange(unheard_, unheard_ & ~bit) & bit) != 0;
}

SignalAction ThreadGroup::set_action(int signal, const SignalAction& action) {
    const std::vector<RefPtr<Task>> tasks = TaskTable::tasks_of(*this);
    MutexLock lock(signal_mu_);
    SignalAction& slot = actions_->actions[static_cast<size_t>(signal)];
    const SignalAction old = slot;
    slot = action;
    slot.mask &= ~kUnblockable;
    if (SignalControl::ignored_locked(*this, signal)) {
        pending_.discard(signal_bit(signal));
        for (const auto& t : tasks) {
            t->pending_.discard(signal_bit(signal));
        }
    }
    return old;
}

void reset_signal_actions(ThreadGroup& group) { group.reset_actions(); }

void ThreadGroup::reset_actions() {
    auto fresh = make_ref<SignalActions>();
    MutexLock lock(signal_mu_);
    for (size_t i = 1; i < fresh->actions.size(); i++) {
        if (actions_->actions[i].handler == 1) {
            fresh->actions[i].handler = 1;
        }
    }
    actions_ = std::move(fresh);
}

void signal_sets(const ThreadGroup& group, uint64_t& ignored, uint64_t& caught) {
    ignored = caught = 0;
    for (int i = 1; i <= kSignalCount; i++) {
        const uint64_t handler = group.action(i).handler;
        if (handler == 1) {
            ignored |= signal_bit(i);
        } else if (handler != 0) {
            caught |= signal_bit(i);
        }
    }
}

uint64_t group_pending_signals(const ThreadGroup& group) { return group.pending_set(); }

uint64_t ThreadGroup::pending_set() const {
    MutexLock lock(signal_mu_);
    return pending_.set();
}

bool take_signal(Task& task, uint64_t wanted, SignalInfo& info) {
    if (!task.take_pending(wanted & ~kUnblockable, info)) {
        return false;
    }
    process_timers_signal_taken(task.group(), info);
    return true;
}

bool Task::take_pending(uint64_t wanted, SignalInfo& info) {
    MutexLock lock(group_->signal_mu_);
    return pending_.take(wanted, info) || group_->pending_.take(wanted, info);
}

uint64_t pending_signals(Task& task) { return task.pending_set(); }

uint64_t Task::pending_set() {
    MutexLock lock(group_->signal_mu_);
    return pending_.set() | group_->pending_.set();
}

uint64_t Task::own_pending_set() {
    MutexLock lock(group_->signal_mu_);
    return pending_.set();
}

void ThreadGroup::begin_exit(int status) {
    MutexLock lock(signal_mu_);
    SignalControl::begin_group_exit_locked(*this, status);
}

Status send_signal(Task& target, const SignalInfo& info) {
    return SignalControl::send(target.group(), &target, info);
}

Status send_signal(ThreadGroup& target, const SignalInfo& info) {
    return SignalControl::send(target, nullptr, info);
}

Status send_signal(ProcessGroup& target, const SignalInfo& info) {
    const auto members = TaskTable::members_of(target);
    if (members.empty()) {
        return Errno(ESRCH);
    }
    for (const auto& member : members) {
        (void)SignalControl::send(*member, nullptr, info);
    }
    return {};
}

}  // namespace moat::kernel
