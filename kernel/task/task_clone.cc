// clone(2), fork(2), vfork(2).

#include <linux/capability.h>
#include <linux/sched.h>
#include <sys/resource.h>

#include "kernel/base/cleanup.h"
#include "kernel/ipc/shm.h"
#include "kernel/mm/address_space.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/pidfd.h"
#include "kernel/task/task_life.h"
#include "kernel/task/task_run.h"
#include "kernel/task/task_signals.h"
#include "kernel/task/task_table.h"
#include "kernel/time/process_timers.h"

namespace moat::kernel {

namespace {

constexpr uint64_t kNamespaceFlags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                     CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP;

}  // namespace

// The caller's FPU state goes to the new thread's signal stack, copied by its own stub as it enters
// the guest; both stacks lie in the child's address space, shared or a copy. Nothing to inherit:
// the thread starts with a clean FPU.
void TaskLife::inherit_fpu(const Task& parent, Task& child, const platform::HostThread& thread) {
    const uint64_t top = platform::signal_stack_top(parent.thread_->slot_index());
    if (parent.fpstate_ < top - MOAT_FIRST_FRAME + 0x1000 || parent.fpstate_ >= top) {
        return;
    }
    const uint64_t size = top - parent.fpstate_;
    child.fpstate_ = platform::signal_stack_top(thread.slot_index()) - size;
    child.fpu_copy_ = {child.fpstate_, parent.fpstate_, size};
}

RefPtr<Task> TaskLife::make_task(RefPtr<ThreadGroup> group, Task& parent, int32_t tid) {
    auto task = make_ref<Task>(std::move(group), tid);
    task->set_name(parent.name());
    task->credentials_ = parent.credentials();
    task->signal_mask_.store(parent.signal_mask());
    task->personality_.store(parent.personality());
    task->dumpable_.store(parent.dumpable_.load());
    task->scheduling.copy_from(parent.scheduling);
    task->inherit_seccomp(parent);
    return task;
}

namespace {

/// RLIMIT_NPROC: EAGAIN when the caller's user has as many tasks. Counted when asked, and only
/// where there is a limit; of one pid namespace, as nothing says that a user of another is the
/// same.
Status check_process_count(Task& task) {
    const uint64_t limit = task.rlimit(RLIMIT_NPROC);
    const CredentialsRef who = task.credentials();
    if (limit == RLIM_INFINITY || who->uid == 0 || who->has_capability(CAP_SYS_RESOURCE) ||
        who->has_capability(CAP_SYS_ADMIN)) {
        return {};
    }
    uint64_t count = 0;
    for (const auto& group : task.pid_namespace().groups()) {
        const auto tasks = TaskTable::tasks_of(*group);
        const auto ended = tasks.empty() ? group->ended_leader() : nullptr;
        for (const auto& other : tasks) {
            count += other->credentials()->uid == who->uid ? 1 : 0;
        }
        // Linux counts a process until it is waited for.
        count += ended && ended->credentials()->uid == who->uid ? 1 : 0;
    }
    return count >= limit ? Status(Errno(EAGAIN)) : Status();
}

}  // namespace

Result<int64_t> TaskLife::clone(Task& task, const CloneArguments& arguments) {
    const uint64_t flags = arguments.flags;
    // kernel/fork.c:copy_process
    if ((flags & CLONE_THREAD) != 0 && (flags & CLONE_SIGHAND) == 0) {
        return Errno(EINVAL);
    }
    if ((flags & CLONE_SIGHAND) != 0 && (flags & CLONE_VM) == 0) {
        return Errno(EINVAL);
    }
    if ((flags & (CLONE_NEWNS | CLONE_FS)) == (CLONE_NEWNS | CLONE_FS)) {
        return Errno(EINVAL);
    }
    if ((flags & kNamespaceFlags) != 0) {
        return unsupported("clone with new namespaces", EPERM);
    }
    // Where clone(2) stores the descriptor is where it would store the child's number.
    if ((flags & CLONE_PIDFD) != 0 &&
        (flags & (CLONE_THREAD | CLONE_PARENT_SETTID | CLONE_DETACHED)) != 0) {
        return Errno(EINVAL);
    }
    TRY(check_process_count(task));
    if (!task.in_stub()) {
        return kNeedStub;
    }
    return (flags & CLONE_THREAD) != 0 ? clone_thread(task, arguments)
                                       : clone_process(task, arguments);
}

Result<int64_t> TaskLife::clone_thread(Task& task, const CloneArguments& arguments) {
    Container& container = task.container();
    TRY(container.charge_task());
    auto uncharge = Cleanup([&] { container.release_task(); });
    const RefPtr<platform::HostThread> thread =
        TRY(task.mm().process().acquire_thread(*task.thread_));
    auto give_back = Cleanup([&] { task.mm().process().park(thread); });
    task.notification_ = task.thread_->event_id;  // an injected clone moves it on

    RefPtr<ThreadGroup> group(&task.group());
    RefPtr<Task> child;
    {
        child = make_task(group, task, 0);
        child->set_mm(task.mm_ref());
        child->set_fds((arguments.flags & CLONE_FILES) != 0 ? task.fds_ref() : task.fds().clone());
        child->set_fs((arguments.flags & CLONE_FS) != 0 ? task.fs_ref() : task.fs().clone());
        MutexLock lock(task_table_mutex());
        if (group->group_exit_) {
            return Errno(EAGAIN);
        }
        child->inherit_seccomp(task);  // again: another thread may have synchronized meanwhile
        PidNamespace& pids = group->pid_namespace();
        child->tid_.store(pids.take_number_locked());
        pids.tasks_[child->tid()] = child.get();
        group->tasks_.push_back(child);
    }
    uncharge.release();
    give_back.release();
    const int32_t tid = child->tid();
    inherit_fpu(task, *child, *thread);
    child->registers_ = task.registers_;
    child->registers_.rax = 0;
    if (arguments.stack != 0) {
        child->registers_.rsp = arguments.stack;
    }
    if ((arguments.flags & CLONE_SETTLS) != 0) {
        child->registers_.fs_base = arguments.tls;
    }
    if ((arguments.flags & CLONE_CHILD_CLEARTID) != 0) {
        child->clear_child_tid_ = to_integer(arguments.child_tid.address());
    }
    if ((arguments.flags & CLONE_PARENT_SETTID) != 0) {
        (void)task.copy_out(arguments.parent_tid, tid);
    }
    if ((arguments.flags & CLONE_CHILD_SETTID) != 0) {
        (void)task.copy_out(arguments.child_tid, tid);
    }
    child->set_thread(thread);
    TaskRunner::start(*child);
    attach_worker(thread->listener_ref(), LeavingOwn::kNo);
    return tid;
}

Result<int64_t> TaskLife::clone_process(Task& task, const CloneArguments& arguments) {
    const uint64_t flags = arguments.flags;
    ThreadGroup& parent = task.group();
    Container& container = task.container();
    TRY(container.charge_task());
    auto uncharge = Cleanup([&] { container.release_task(); });

    std::optional<FdReservation> pidfd;
    if ((flags & CLONE_PIDFD) != 0) {
        pidfd.emplace(TRY(task.fds().reserve(task.rlimit(RLIMIT_NOFILE))));
    }
    auto group = make_ref<ThreadGroup>();
    group->container_ = RefPtr<Container>(&container);
    group->exit_signal_ = arguments.exit_signal;
    {
        MutexLock lock(parent.signal_mu_);
        auto actions = make_ref<SignalActions>();
        actions->actions = parent.actions_->actions;
        if ((flags & CLONE_SIGHAND) != 0) {
            actions = parent.actions_;
        }
        group->actions_ = std::move(actions);
    }
    {
        MutexLock lock(parent.limits_mu_);
        group->limits_ = parent.limits_;
    }
    const RefPtr<Task> child = make_task(group, task, 0);
    child->set_fds((flags & CLONE_FILES) != 0 ? task.fds_ref() : task.fds().clone());
    child->set_fs((flags & CLONE_FS) != 0 ? task.fs_ref() : task.fs().clone());
    child->registers_ = task.registers_;
    child->registers_.rax = 0;
    if (arguments.stack != 0) {
        child->registers_.rsp = arguments.stack;
    }
    if ((flags & CLONE_SETTLS) != 0) {
        child->registers_.fs_base = arguments.tls;
    }
    if ((flags & CLONE_CHILD_CLEARTID) != 0) {
        child->clear_child_tid_ = to_integer(arguments.child_tid.address());
    }

    RefPtr<platform::HostThread> thread;
    if ((flags & CLONE_VM) != 0) {
        // vfork and posix_spawn: a guest process in the same host process, until it execs.
        thread = TRY(task.mm().process().acquire_thread(*task.thread_));
        inherit_fpu(task, *child, *thread);
        child->set_mm(task.mm_ref());
    } else {
        const auto process = TRY(platform::HostProcess::fork(*task.thread_));
        thread = process->take_parked();
        CHECK(thread);
        if (thread->slot_index() == task.thread_->slot_index()) {
            child->fpstate_ = task.fpstate_;  // the signal stack was copied
        } else {
            inherit_fpu(task, *child, *thread);
        }
        child->alternate_stack_ = task.alternate_stack_;
        auto mm = make_ref<AddressSpace>(process);
        mm->copy_layout_from(task.mm());
        mm->segments().copy_from(task.mm().segments(), IpcActor::of(task));
        child->set_mm(std::move(mm));
    }
    task.notification_ = task.thread_->event_id;
    child->mm().add_user(*group);
    child->set_thread(thread);

    {
        MutexLock lock(task_table_mutex());
        PidNamespace& pids = parent.pid_namespace();
        const int32_t pid = pids.take_number_locked();
        child->tid_.store(pid);
        group->pid_ = pid;
        group->tasks_.push_back(child);
        ThreadGroup* real_parent =
            (flags & CLONE_PARENT) != 0 && parent.parent_ != nullptr ? parent.parent_ : &parent;
        group->parent_ = real_parent;
        if ((flags & CLONE_PARENT) != 0) {
            // Not the caller's choice: it would be a signal to a process that it may not signal.
            group->exit_signal_ = parent.exit_signal_;
        }
        group->parent_tid_ = real_parent == &parent ? task.tid() : parent.parent_tid_;
        real_parent->children_.push_back(group);
        TaskTable::join_process_group_locked(*group, parent.process_group_);
        pids.tasks_[pid] = child.get();
        pids.groups_[pid] = group.get();
    }
    uncharge.release();
    if (group->limit(RLIMIT_CPU).rlim_cur != RLIM_INFINITY) {
        process_timers_cpu_limit(*group);
    }
    const int32_t pid = group->pid();
    group->vfork_pending_.store((flags & CLONE_VFORK) != 0);
    if ((flags & CLONE_PARENT_SETTID) != 0) {
        (void)task.copy_out(arguments.parent_tid, pid);
    }
    if (pidfd) {
        const Fd fd = std::move(*pidfd).install(make_ref<PidFile>(group, 0), CloseOnExec::kYes);
        (void)task.copy_out(arguments.parent_tid, to_integer(fd));
    }
    if ((flags & CLONE_CHILD_SETTID) != 0) {
        (void)child->copy_out(arguments.child_tid, pid);
    }
    TaskRunner::start(*child);
    attach_worker(thread->listener_ref(), LeavingOwn::kNo);
    if ((flags & CLONE_VFORK) == 0) {
        return pid;
    }
    // Until the child execs or exits; only the parent's own end comes before (Linux:
    // wait_for_vfork_done is killable).
    return block(task, {{&group->vfork_done_, EPOLLIN}}, Deadline::never(),
                 [group, pid](Task& parent_task, Wake wake) -> Result<int64_t> {
                     if (!group->vfork_pending_.load() ||
                         (wake == Wake::kInterrupted && group_is_exiting(parent_task))) {
                         return pid;
                     }
                     return kBlocked;
                 });
}

}  // namespace moat::kernel
