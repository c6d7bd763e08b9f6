// exit(2), exit_group(2), and what is left of a process when its last task has ended.

#include <sys/wait.h>
#include <time.h>

#include <algorithm>

#include "kernel/base/log.h"
#include "kernel/fs/tty/tty.h"
#include "kernel/ipc/ipc_namespace.h"
#include "kernel/mm/address_space.h"
#include "kernel/task/futex.h"
#include "kernel/task/task_life.h"
#include "kernel/task/task_run.h"
#include "kernel/task/task_signals.h"
#include "kernel/task/task_table.h"
#include "kernel/time/process_timers.h"

namespace moat::kernel {

namespace {

uint64_t process_cpu_ns(pid_t pid) {
    // Linux: the CPU clock of a process, include/linux/posix-timers_types.h (CPUCLOCK_SCHED).
    const auto clock = static_cast<clockid_t>((~static_cast<uint32_t>(pid) << 3) | 2);
    timespec t{};
    if (clock_gettime(clock, &t) != 0) {
        return 0;
    }
    return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

/// Closes a descriptor table with its last user: POSIX locks go by flush(), which asks whose table
/// it is.
void close_files(Task& task) {
    RefPtr<FdTable> fds = task.fds_ref();
    if (fds && fds->ref_count() <= 2) {  // the task's and ours
        for (const auto& file : fds->take_all()) {
            file->flush(task);
        }
    }
    task.set_fds(nullptr);
}

/// Linux: mm_release(). What others may wait for in memory that outlives the task: robust locks lie
/// in shared mappings, too.
void release_words(Task& task, bool memory_lives) {
    exit_robust_list(task);
    exit_pi_locks(task);
    if (memory_lives && task.clear_child_tid() != 0) {
        const UserPtr<int32_t> word(task.clear_child_tid());
        (void)task.copy_out(word, 0);
        futex_wake_one(task, word.address());
    }
}

}  // namespace

uint64_t ThreadGroup::cpu_ns() const {
    RefPtr<Task> task;
    {
        MutexLock lock(task_table_mutex());
        if (tasks_.empty()) {
            return cpu_ns_;
        }
        task = tasks_.front();
    }
    const RefPtr<AddressSpace> mm = task->mm_ref();
    return cpu_ns_ + (mm ? process_cpu_ns(mm->process().pid()) : 0);
}

void TaskLife::keep_cpu_time(ThreadGroup& group, const AddressSpace& mm) {
    group.cpu_ns_ += process_cpu_ns(mm.process().pid());
}

void TaskLife::exit_task(Task& task, int status) {
    // The caller acts for the task; from here on nobody does.
    task.serving_.store(Task::Serving::kGone);
    const RefPtr<Task> self(&task);
    const RefPtr<ThreadGroup> group(&task.group());
    const RefPtr<AddressSpace> mm = task.mm_ref();
    const RefPtr<platform::HostThread> thread = task.thread_ref();
    bool others = false;
    {
        MutexLock lock(task_table_mutex());
        others = group->tasks_.size() > 1;
    }
    if (mm) {
        release_words(task, others || mm->users() > 1);
    }
    // Files close before anybody hears of the end, as on Linux.
    close_files(task);
    task.set_fs(nullptr);
    if (!others) {
        if (mm) {
            keep_cpu_time(*group, *mm);
        }
        // Before anybody hears of the end, too. The host's mappings go with its process.
        if (mm && mm->users() == 1) {
            mm->segments().clear(IpcActor::of(*group));
            mm->end_executing();
        }
        if (group->vfork_pending_.exchange(false)) {
            group->vfork_done_.notify(EPOLLIN);
        }
    }

    bool last = false;
    {
        MutexLock lock(task_table_mutex());
        std::erase(group->tasks_, self);
        if (task.tid() == group->pid()) {
            group->ended_leader_ = self;
        }
        last = group->tasks_.empty();
        if (!last) {
            // __WNOTHREAD: another thread is the parent of its children now.
            for (const auto& child : group->children_) {
                if (child->parent_tid_ == task.tid()) {
                    child->parent_tid_ = group->tasks_.front()->tid();
                }
            }
        }
        PidNamespace& pids = group->pid_namespace();
        const auto it = pids.tasks_.find(task.tid());
        if (it != pids.tasks_.end() && it->second == &task) {
            pids.tasks_.erase(it);
        }
    }
    {
        MutexLock lock(group->signal_mu_);
        if (!group->group_exit_ && (last || task.tid() == group->pid())) {
            group->group_exit_status_ = status;
        }
    }
    group->container().release_task();
    group->thread_exits_.notify(EPOLLIN);
    if (last) {
        finish_group(group);
    }

    // The host's side last: the parent need not wait for it.
    if (thread) {
        thread->set_owner(nullptr);
        const bool process_lives = mm && !(last && mm->users() == 1);
        if (process_lives && !thread->process().dead()) {
            if (task.in_stub_) {
                thread->process().park(thread);
            } else {
                thread->kick();  // into the stub, where its worker parks it
                thread->listener().reply(task.notification_, -EINTR);
            }
        }
    }
    if (last && mm) {
        mm->remove_user(*group);
    }
    task.set_mm(nullptr);
    task.set_thread(nullptr);
}

void TaskLife::exit_group(Task& task, int status) {
    ThreadGroup& group = task.group();
    group.begin_exit(status);
    for (const auto& other : TaskTable::tasks_of(group)) {
        if (other.get() != &task) {
            TaskRunner::poke(*other);
        }
    }
    exit_task(task, status);
}

void TaskLife::kill_group(ThreadGroup& group, int status) {
    const WakeScope scope;
    group.begin_exit(status);
    for (const auto& task : TaskTable::tasks_of(group)) {
        TaskRunner::poke(*task);
    }
}

void TaskLife::host_process_died(platform::HostProcess& process, int wait_status) {
    for (const auto& group : AddressSpace::users_of(process)) {
        // OOM killer, a double fault, the platform's own kill of an attacker.
        const int status = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : SIGKILL;
        if (group->state() < ThreadGroup::State::kZombie && !group->group_exit_) {
            LOG(kInfo, "task", "container %s: host process of pid %d ended by signal %d",
                group->container().id().c_str(), group->pid(), status);
        }
        kill_group(*group, status);
    }
}

void TaskLife::finish_group(RefPtr<ThreadGroup> group) {
    Container& container = group->container();
    process_timers_exit(*group);
    container.ipc().process_exited(*group);
    int wait_status = 0;
    {
        MutexLock lock(group->signal_mu_);
        wait_status = group->group_exit_status_;
        group->pending_ = PendingSignals();
    }
    // A terminal hangs up with its session's leader.
    const RefPtr<Session> session = TaskTable::session_of(*group);
    if (session && session->id() == group->pid()) {
        if (TaskTable::controlling_tty(*session)) {
            Tty::leader_exited(*session);
        }
    }

    std::vector<RefPtr<ProcessGroup>> newly_orphaned;
    std::vector<RefPtr<ThreadGroup>> adopted_zombies;
    std::vector<std::pair<RefPtr<ThreadGroup>, int32_t>> death_signals;
    // In a namespace that the pod's containers share it is the pod's pause process.
    RefPtr<ThreadGroup> reaper = container.plan().pid_namespace == control::PidNamespace::kPod
                                     ? container.pid_namespace().find_group(1)
                                     : container.init();
    if (reaper && reaper->state() >= ThreadGroup::State::kZombie) {
        reaper = nullptr;
    }
    RefPtr<ThreadGroup> parent;
    std::function<void(int)> on_exit;
    {
        MutexLock lock(task_table_mutex());
        group->wait_status_ = wait_status;
        group->state_.store(ThreadGroup::State::kZombie);
        for (ThreadGroup* p = group->parent_; p != nullptr; p = p->parent_) {
            if (p->is_subreaper_ && p->state() < ThreadGroup::State::kZombie) {
                reaper = RefPtr<ThreadGroup>(p);
                break;
            }
        }
        if (reaper == group) {
            reaper = nullptr;
        }
        for (auto& child : group->children_) {
            const RefPtr<ProcessGroup> pg = child->process_group_;
            if (pg && pg != group->process_group_ && group->process_group_ &&
                &pg->session() == &group->process_group_->session() &&
                TaskTable::is_orphaned_locked(*pg, group.get())) {
                newly_orphaned.push_back(pg);
            }
            child->parent_ = reaper.get();
            child->parent_tid_ = reaper ? reaper->pid() : 0;
            child->exit_signal_ = SIGCHLD;  // a signal of the child's choice would end init
            for (const RefPtr<Task>& thread : child->tasks_) {
                if (const int32_t signal = thread->parent_death_signal(); signal != 0) {
                    death_signals.emplace_back(child, signal);
                }
            }
            if (reaper) {
                reaper->children_.push_back(child);
            }
            if (child->state() == ThreadGroup::State::kZombie) {
                adopted_zombies.push_back(child);
            }
        }
        group->children_.clear();
        // Linux: kill_orphaned_pgrp(): only if it was this process whose parent kept the group.
        const ProcessGroup* parents_group =
            group->parent_ != nullptr ? group->parent_->process_group_.get() : nullptr;
        if (group->process_group_ && parents_group != nullptr &&
            parents_group != group->process_group_.get() &&
            &parents_group->session() == &group->process_group_->session() &&
            TaskTable::is_orphaned_locked(*group->process_group_, group.get())) {
            newly_orphaned.push_back(group->process_group_);
        }
        parent = RefPtr<ThreadGroup>(group->parent_);
        on_exit = std::move(group->on_exit_);
    }
    // POSIX _exit: a process group that became orphaned with a stopped member is told.
    for (const auto& pg : newly_orphaned) {
        const auto members = TaskTable::members_of(*pg);
        const bool stopped = std::any_of(members.begin(), members.end(), [](const auto& m) {
            return m->state() == ThreadGroup::State::kStopped;
        });
        if (stopped) {
            (void)send_signal(*pg, SignalInfo::from_kernel(SIGHUP));
            (void)send_signal(*pg, SignalInfo::from_kernel(SIGCONT));
        }
    }
    for (const auto& [child, signal] : death_signals) {
        (void)send_signal(*child, SignalInfo::from_process(signal, SI_USER, group->pid(), 0));
    }
    for (const auto& zombie : adopted_zombies) {
        if (reaper) {
            notify_parent(*zombie);
        } else {
            reap(*zombie);
        }
    }
    if (container.init() == group) {
        // pid_namespaces(7): with its init all of a namespace ends.
        // One that others share goes on; those who joined a container's own go with it.
        const bool owns = container.plan().pid_namespace == control::PidNamespace::kContainer;
        for (const auto& other : container.pid_namespace().groups()) {
            if ((owns || &other->container() == &container) && other != group) {
                kill_group(*other, SIGKILL);
            }
        }
    }
    group->exited_.notify(EPOLLIN);
    if (parent) {
        notify_parent(*group);
    } else {
        reap(*group);
    }
    if (on_exit) {
        on_exit(wait_status);
    }
}

void TaskLife::notify_parent(ThreadGroup& group) {
    const RefPtr<ThreadGroup> parent = TaskTable::parent_of(group);
    if (!parent) {
        return;
    }
    const int status = group.wait_status_;
    SignalInfo info;
    info.signo = group.exit_signal_;
    info.code = WIFEXITED(status) ? CLD_EXITED : WCOREDUMP(status) ? CLD_DUMPED : CLD_KILLED;
    info.process.pid = group.pid();
    info.process.status = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
    bool autoreap = false;
    if (group.exit_signal_ == SIGCHLD) {
        const SignalAction action = parent->action(SIGCHLD);
        autoreap = action.handler == 1 || (action.flags & static_cast<uint64_t>(SA_NOCLDWAIT)) != 0;
    }
    if (autoreap) {
        reap(group);
    }
    if (group.exit_signal_ != 0) {
        (void)send_signal(*parent, info);
    }
    parent->child_events_.notify(EPOLLIN);
}

void TaskLife::reap(ThreadGroup& group) {
    const RefPtr<ThreadGroup> self(&group);
    RefPtr<ProcessGroup> process_group;  // may be the last reference: dropped without the lock
    RefPtr<Task> leader;                 // likewise
    MutexLock lock(task_table_mutex());
    if (group.state() == ThreadGroup::State::kReaped) {
        return;
    }
    group.state_.store(ThreadGroup::State::kReaped);
    if (group.parent_ != nullptr) {
        group.parent_->children_cpu_ns_ += group.cpu_ns_ + group.children_cpu_ns_;
        group.parent_->children_.remove(self);
        group.parent_ = nullptr;
    }
    TaskTable::leave_process_group_locked(group);
    process_group = std::move(group.process_group_);
    leader = std::move(group.ended_leader_);
    PidNamespace& pids = group.pid_namespace();
    const auto it = pids.groups_.find(group.pid());
    if (it != pids.groups_.end() && it->second == &group) {
        pids.groups_.erase(it);
    }
    lock.unlock();
}

}  // namespace moat::kernel
