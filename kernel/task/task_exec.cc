// execve(2), execveat(2), and the start of processes by the control server.

#include <limits.h>
#include <linux/seccomp.h>
#include <string.h>

#include "kernel/base/cleanup.h"
#include "kernel/base/log.h"
#include "kernel/fs/dentry.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/tty/tty.h"
#include "kernel/fs/vfs.h"
#include "kernel/mm/address_space.h"
#include "kernel/mm/elf.h"
#include "kernel/task/direct_calls.h"
#include "kernel/task/futex.h"
#include "kernel/task/seccomp_filter.h"
#include "kernel/task/task_life.h"
#include "kernel/task/task_run.h"
#include "kernel/task/task_signals.h"
#include "kernel/task/task_table.h"
#include "kernel/time/process_timers.h"

namespace moat::kernel {

namespace {

constexpr int kMaxInterpreters = 4;  // Linux: fs/exec.c, bprm->recursion depth
constexpr size_t kHeaderSize = 256;  // BINPRM_BUF_SIZE
constexpr uint32_t kAddrNoRandomize = 0x0040000;

/// The image that is to run, after `#!` lines, with the arguments they add.
struct Found {
    RefPtr<File> file;
    std::vector<std::string> arguments;
};

Result<Found> find_image(Task& task, DirFd dirfd, std::string path,
                         std::vector<std::string> arguments, int flags) {
    for (int depth = 0;; depth++) {
        Found found;
        found.file = TRY(open_executable(task, dirfd, path, flags));
        char header[kHeaderSize] = {};
        const size_t n = TRY(read_at(task, *found.file, header, sizeof header - 1, 0));
        if (n < 2 || header[0] != '#' || header[1] != '!') {
            found.arguments = std::move(arguments);
            return found;
        }
        if (depth == kMaxInterpreters) {
            return Errno(ELOOP);
        }
        // execve(2), "Interpreter scripts": one optional argument, the rest of the line.
        std::string line(header + 2);
        const size_t line_end = line.find('\n');
        if (line_end == std::string::npos && n == sizeof header - 1) {
            return Errno(ENOEXEC);
        }
        line.resize(std::min(line.size(), line_end));
        const auto trim = [](std::string text) {
            const size_t first = text.find_first_not_of(" \t");
            const size_t last = text.find_last_not_of(" \t");
            return first == std::string::npos ? std::string()
                                              : text.substr(first, last - first + 1);
        };
        line = trim(line);
        const size_t space = line.find_first_of(" \t");
        const std::string interpreter = line.substr(0, space);
        if (interpreter.empty()) {
            return Errno(ENOEXEC);
        }
        std::vector<std::string> longer{interpreter};
        if (space != std::string::npos) {
            longer.push_back(trim(line.substr(space)));
        }
        longer.push_back(path);
        if (!arguments.empty()) {
            longer.insert(longer.end(), arguments.begin() + 1, arguments.end());
        }
        arguments = std::move(longer);
        path = interpreter;
        dirfd = kCwd;
        flags = 0;
    }
}

std::string base_name(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

/// The loaded image and who will run it.
struct Prepared {
    LoadedImage image;
    RefPtr<Credentials> credentials;
};

Result<Prepared> prepare_image(Task& task, const Found& found, const std::string& path,
                               std::vector<std::string> environment) {
    const CredentialsRef old = task.credentials();
    const struct stat st = TRY(found.file->stat(task));
    const bool nosuid =
        found.file->path().mount() != nullptr && found.file->path().mount()->no_suid();
    // Linux: bprm_fill_uid() wants both mapped by the user namespace.
    const bool mapped =
        task.credentials()->has_uid(st.st_uid) && task.credentials()->has_gid(st.st_gid);
    Prepared prepared;
    prepared.credentials = old->for_exec(
        st.st_mode, st.st_uid, st.st_gid,
        nosuid || !mapped ? Credentials::SetId::kIgnore : Credentials::SetId::kHonour);
    LoadRequest request;
    request.executable = found.file;
    request.path = path;
    request.arguments = found.arguments;
    request.environment = std::move(environment);
    request.stack_limit = task.rlimit(RLIMIT_STACK);
    request.randomize = (task.personality() & kAddrNoRandomize) == 0;
    request.uid = prepared.credentials->uid;
    request.euid = prepared.credentials->euid;
    request.gid = prepared.credentials->gid;
    request.egid = prepared.credentials->egid;
    request.secure = request.uid != request.euid || request.gid != request.egid;
    prepared.image = TRY(load_image(task, request));
    return prepared;
}

}  // namespace

Result<int64_t> TaskLife::exec(Task& task, DirFd dirfd, const std::string& path,
                               std::vector<std::string> arguments,
                               std::vector<std::string> environment, int flags) {
    if (!task.in_stub()) {
        return kNeedStub;
    }
    ThreadGroup& group = task.group();
    auto found = TRY(find_image(task, dirfd, path, std::move(arguments), flags));

    // The other threads end first (Linux: de_thread). Only the one that began may go on.
    {
        bool alone = false;
        {
            MutexLock lock(task_table_mutex());
            alone = group.tasks_.size() == 1;
        }
        if (!alone) {
            {
                MutexLock lock(group.signal_mu_);
                if (group_is_exiting(task)) {
                    return kRestartNoIntr;  // and ends on the way out
                }
                group.exec_task_.store(&task);
            }
            for (const auto& other : TaskTable::tasks_of(group)) {
                if (other.get() != &task) {
                    TaskRunner::poke(*other);
                }
            }
            RefPtr<ThreadGroup> waited(&group);
            // Served again from the start, by the worker, once it is alone: arguments are re-read,
            // which only this task's own memory can have changed meanwhile.
            return block(task, {{&group.thread_exits_, EPOLLIN}}, Deadline::never(),
                         [waited](Task& t, Wake wake) -> Result<int64_t> {
                             {
                                 MutexLock lock(task_table_mutex());
                                 if (waited->tasks_.size() == 1) {
                                     lock.unlock();
                                     return kNeedStub;
                                 }
                             }
                             if (wake == Wake::kInterrupted && waited->group_exit_) {
                                 (void)t;
                                 return kRestartNoIntr;
                             }
                             return kBlocked;
                         });
        }
    }

    auto prepared_result = prepare_image(task, found, path, std::move(environment));
    if (!prepared_result.ok()) {
        group.exec_task_.store(nullptr);
        return prepared_result.error();
    }
    Prepared prepared = std::move(prepared_result).value();

    // No return from here on.
    const RefPtr<AddressSpace> old_mm = task.mm_ref();
    const RefPtr<platform::HostThread> old_thread = task.thread_ref();
    const bool process_lives = old_mm->users() > 1;
    if (!process_lives) {
        keep_cpu_time(group, *old_mm);
    }
    exit_pi_locks(task);
    exit_robust_list(task);  // robust locks may lie in memory that others share
    if (process_lives) {
        if (task.clear_child_tid_ != 0) {
            const UserPtr<int32_t> word(task.clear_child_tid_);
            (void)task.copy_out(word, 0);
            futex_wake_one(task, word.address());
        }
    }
    old_thread->set_owner(nullptr);
    old_thread->event_id = task.notification_;
    if (process_lives) {
        old_mm->process().park(old_thread);
    }
    RefPtr<Task> former_leader;  // dropped without the lock
    {
        MutexLock lock(task_table_mutex());
        former_leader = std::move(group.ended_leader_);
        if (task.tid() != group.pid_) {
            PidNamespace& pids = group.pid_namespace();
            pids.tasks_.erase(task.tid());
            task.tid_.store(group.pid_);
            pids.tasks_[group.pid_] = &task;
        }
        group.has_execed_ = true;
        group.exit_signal_ = SIGCHLD;
    }
    prepared.image.mm->add_user(group);
    prepared.image.mm->process().end_direct_calls(calls_to_be_seen(task));
    task.set_mm(prepared.image.mm);
    task.set_thread(prepared.image.thread);
    if (task.fds_ref()->ref_count() > 2) {
        task.set_fds(task.fds().clone());  // shared by CLONE_FILES: execve unshares
    }
    for (const auto& file : task.fds().take_close_on_exec()) {
        file->flush(task);
    }
    reset_signal_actions(group);
    process_timers_exec(group);
    task.alternate_stack_ = AlternateStack();
    task.clear_child_tid_ = 0;
    task.robust_list_ = 0;
    task.restart_.pending = false;
    task.dumpable_.store(true);
    task.set_credentials(std::move(prepared.credentials));
    task.set_name(base_name(path));
    group.exec_task_.store(nullptr);
    if (group.vfork_pending_.exchange(false)) {
        group.vfork_done_.notify(EPOLLIN);
    }
    task.registers_ = prepared.image.registers;
    task.fpstate_ = 0;
    prepared.image.thread->set_owner(RefPtr<RefCounted>(&task));
    task.notification_ = prepared.image.thread->event_id;
    old_mm->remove_user(group);
    attach_worker(prepared.image.thread->listener_ref(), LeavingOwn::kYes);
    return kNoReturn;
}

// ---------------------------------------------------------------- processes from outside

Result<RefPtr<ThreadGroup>> TaskLife::spawn(SpawnArguments arguments) {
    Container& container = *arguments.container;
    TRY(container.charge_task());
    auto uncharge = Cleanup([&] { container.release_task(); });

    auto group = make_ref<ThreadGroup>();
    group->container_ = RefPtr<Container>(&container);
    group->actions_ = make_ref<SignalActions>();
    group->exit_signal_ = SIGCHLD;
    group->on_exit_ = std::move(arguments.on_exit);
    for (auto& limit : group->limits_) {
        limit = {RLIM_INFINITY, RLIM_INFINITY};
    }
    group->limits_[RLIMIT_NOFILE] = {1024, 16384};
    group->limits_[RLIMIT_STACK] = {8 << 20, RLIM_INFINITY};
    group->limits_[RLIMIT_CORE] = {0, RLIM_INFINITY};
    group->limits_[RLIMIT_MEMLOCK] = {8 << 20, 8 << 20};
    group->limits_[RLIMIT_SIGPENDING] = {1024, 16384};
    group->limits_[RLIMIT_MSGQUEUE] = {819200, 819200};
    group->limits_[RLIMIT_NICE] = {0, 0};
    group->limits_[RLIMIT_RTPRIO] = {0, 0};
    for (const auto& [resource, limit] : arguments.limits) {
        group->limits_[static_cast<size_t>(resource)] = limit;
    }

    auto task = make_ref<Task>(group, 0);
    task->set_credentials(arguments.credentials);
    if (container.seccomp()) {
        task->set_seccomp(SECCOMP_MODE_FILTER, container.seccomp());
    }
    task->set_fs(arguments.fs);
    task->set_fds(arguments.fds);
    auto abandon = Cleanup([&] {
        task->set_fds(nullptr);
        task->set_fs(nullptr);
    });

    if (arguments.prepare) {
        TRY(arguments.prepare(*task));
    }
    if (arguments.arguments.empty()) {
        return Errno(EINVAL);
    }
    // execvp(3) for the container's command, by its own PATH.
    const std::string& command = arguments.arguments[0];
    std::vector<std::string> candidates;
    if (command.find('/') != std::string::npos) {
        candidates.push_back(command);
    } else {
        std::string search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        for (const auto& variable : arguments.environment) {
            if (variable.rfind("PATH=", 0) == 0) {
                search = variable.substr(5);
            }
        }
        for (size_t at = 0; at <= search.size();) {
            const size_t end = std::min(search.find(':', at), search.size());
            candidates.push_back(search.substr(at, end - at) + "/" + command);
            at = end + 1;
        }
    }
    Result<Found> found = Errno(ENOENT);
    std::string path;
    for (const auto& candidate : candidates) {
        auto attempt = find_image(*task, kCwd, candidate, arguments.arguments, 0);
        if (attempt.ok()) {
            found = std::move(attempt);
            path = candidate;
            break;
        }
        if (!(found.error() == EACCES)) {
            found = attempt.error();
        }
    }
    if (!found.ok()) {
        return found.error();
    }
    Prepared prepared = TRY(prepare_image(*task, *found, path, std::move(arguments.environment)));
    task->set_credentials(std::move(prepared.credentials));
    task->set_name(base_name(path));
    task->registers_ = prepared.image.registers;
    prepared.image.mm->add_user(*group);
    prepared.image.mm->process().end_direct_calls(calls_to_be_seen(*task));
    task->set_mm(prepared.image.mm);
    task->set_thread(prepared.image.thread);

    {
        MutexLock lock(task_table_mutex());
        PidNamespace& pids = group->pid_namespace();
        const int32_t pid = pids.take_number_locked();
        task->tid_.store(pid);
        group->pid_ = pid;
        group->tasks_.push_back(task);
        group->has_execed_ = true;
        auto session = make_ref<Session>(pids, pid);
        TaskTable::join_process_group_locked(*group,
                                             make_ref<ProcessGroup>(pids, pid, std::move(session)));
        pids.tasks_[pid] = task.get();
        pids.groups_[pid] = group.get();
    }
    if (arguments.is_init) {
        container.set_init(group);
    }
    if (arguments.terminal) {
        // A new session's leader: cannot be refused.
        (void)arguments.terminal->make_controlling(*task, false);
    }
    abandon.release();
    uncharge.release();
    process_timers_cpu_limit(*group);
    return group;
}

void TaskLife::start(ThreadGroup& group) {
    const WakeScope scope;
    const RefPtr<Task> task = group.leader();
    if (!task) {
        return;
    }
    const RefPtr<platform::Listener> listener = task->thread_->listener_ref();
    TaskRunner::start(*task);
    attach_worker(listener, LeavingOwn::kNo);
}

}  // namespace moat::kernel
