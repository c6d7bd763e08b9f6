#include "kernel/boot/sandbox.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <set>
#include <thread>

#include "kernel/base/cleanup.h"
#include "kernel/base/log.h"
#include "kernel/boot/job.h"
#include "kernel/boot/mounts.h"
#include "kernel/boot/pause.h"
#include "kernel/control/messages.h"
#include "kernel/fs/devpts/devpts.h"
#include "kernel/fs/mount.h"
#include "kernel/ipc/ipc_namespace.h"
#include "kernel/mm/address_space.h"
#include "kernel/net/socket.h"
#include "kernel/task/seccomp_filter.h"
#include "kernel/task/task_run.h"
#include "kernel/task/task_table.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

namespace {

constexpr size_t kKeptEvents = 512;
/// Statistics are asked for every few seconds, and a guest may have millions of descriptors.
constexpr uint64_t kCountedDescriptors = 1 << 16;

Result<RefPtr<SeccompFilter>> load_profile(const control::ContainerPlan& plan) {
    std::vector<sock_filter> program;
    for (const uint64_t packed : plan.seccomp) {
        program.push_back({static_cast<uint16_t>(packed >> 48), static_cast<uint8_t>(packed >> 40),
                           static_cast<uint8_t>(packed >> 32), static_cast<uint32_t>(packed)});
    }
    return SeccompFilter::create(
        program, nullptr, plan.seccomp_log ? SeccompFilter::Log::kYes : SeccompFilter::Log::kNo);
}

control::ExitStatus exit_status_of(int wait_status) {
    control::ExitStatus status;
    if (WIFEXITED(wait_status)) {
        status.code = WEXITSTATUS(wait_status);
    } else {
        status.signal = WTERMSIG(wait_status);
    }
    status.finished_at_ns = realtime_ns();
    return status;
}

constexpr const char* kCgroupPrefix = "cgroup:";

Outcome<> join(const NamedFds& cgroups, pid_t pid) {
    const std::string text = std::to_string(pid);
    for (const auto& [name, fd] : cgroups) {
        if (::write(fd.get(), text.data(), text.size()) < 0) {
            return failure(Errno(errno), "join " + name);
        }
    }
    return {};
}

}  // namespace

Sandbox::Sandbox(control::SandboxPlan plan, ScopedFd exit_status)
    : plan_(std::move(plan)),
      pod_pids_(make_ref<PidNamespace>(1)),
      pod_ipc_(make_ref<IpcNamespace>(plan_.sysctls)),
      exit_status_(std::move(exit_status)) {}

Outcome<Sandbox::Entry*> Sandbox::find_locked(const std::string& id) {
    const auto it = entries_.find(id);
    if (it == entries_.end()) {
        return failure(ENOENT, "no container " + id + " in this sandbox");
    }
    return it->second.get();
}

Outcome<Job*> Sandbox::find_job_locked(const std::string& id, const std::string& exec_id) {
    Entry* entry = TRY(find_locked(id));
    if (exec_id.empty()) {
        return &entry->init;
    }
    const auto it = entry->execs.find(exec_id);
    if (it == entry->execs.end()) {
        return failure(ENOENT, "no exec " + exec_id + " in container " + id);
    }
    return &it->second;
}

// Waits for `ready()`; false when the client has gone. By poll(2), since a node has such a client
// for every container: none of them may cost a pod that idles a wake-up.
template <typename Ready>
bool Sandbox::wait_locked(std::unique_lock<std::mutex>& lock, int peer, Ready ready) {
    if (ready()) {
        return true;
    }
    constexpr int kSliceMs = 500;  // where there is no descriptor left to be told by
    const ScopedFd changed(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (changed) {
        told_.push_back(changed.get());
    }
    bool gone = false;
    while (!ready() && !gone) {
        lock.unlock();
        pollfd fds[] = {{peer, POLLRDHUP, 0}, {changed.get(), POLLIN, 0}};
        ::poll(fds, 2, changed ? -1 : kSliceMs);
        gone = (fds[0].revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL)) != 0;
        uint64_t count;
        (void)!::read(changed.get(), &count, sizeof count);
        lock.lock();
    }
    std::erase(told_, changed.get());
    return ready();
}

void Sandbox::tell_change_locked() {
    changed_.notify_all();
    for (const int fd : told_) {
        const uint64_t one = 1;
        (void)!::write(fd, &one, sizeof one);
    }
}

// ---------------------------------------------------------------- making

Outcome<RefPtr<PidNamespace>> Sandbox::choose_pids(const control::ContainerPlan& plan) {
    switch (plan.pid_namespace) {
        case control::PidNamespace::kPod: {
            const std::lock_guard lock(pause_mu_);
            if (!pause_) {
                pause_ = TRY(start_pause(plan, pod_pids_, pod_ipc_));
            }
            return pod_pids_;
        }
        case control::PidNamespace::kTarget: {
            const std::lock_guard lock(mu_);
            const Entry* target = TRY(find_locked(plan.pid_target));
            if (target->state != control::ContainerState::kRunning) {
                return failure(
                    ESRCH, "pid namespace of container " + plan.pid_target + ": it does not run");
            }
            return target->container->pid_namespace_ref();
        }
        default:
            return make_ref<PidNamespace>(1);
    }
}

Outcome<> Sandbox::create_container(control::ContainerPlan plan, NamedFds fds,
                                    std::optional<AttachedInput::Once> input) {
    const WakeScope scope;
    const std::string id = plan.id;
    {
        const std::lock_guard lock(mu_);
        if (id.empty()) {
            return failure(EINVAL, "create_container: no id");
        }
        if (entries_.contains(id)) {
            return failure(EEXIST, "container " + id + " exists already");
        }
    }
    if (plan.hostname.empty()) {
        plan.hostname = plan_.hostname;
    }
    auto zygote = TRY_AS("start a zygote", platform::HostProcess::create_zygote());
    // Into the container's cgroups before anything is forked from it: children are born there.
    // Doing it on a thread beside the mounts was measured and gains nothing.
    NamedFds cgroups;
    for (auto it = fds.lower_bound(kCgroupPrefix);
         it != fds.end() && it->first.rfind(kCgroupPrefix, 0) == 0; it = fds.erase(it)) {
        cgroups.insert(std::move(*it));
    }
    TRY(join(cgroups, zygote->pid()));
    RefPtr<PidNamespace> pids = TRY(choose_pids(plan));
    RefPtr<IpcNamespace> ipc = plan.ipc_namespace == control::IpcNamespace::kPod
                                   ? pod_ipc_
                                   : make_ref<IpcNamespace>(plan_.sysctls);
    auto container =
        make_ref<Container>(std::move(plan), std::move(pids), std::move(ipc), std::move(zygote));
    container->set_oom_count(take_fd(fds, "oom_count"));
    if (!container->plan().seccomp.empty()) {
        container->set_seccomp(
            TRY_AS("check the seccomp profile", load_profile(container->plan())));
    }
    auto mounts = build_container_mounts(*container, take_fd(fds, "gofer"));
    if (!mounts.ok()) {
        return mounts.error();
    }
    container->set_mounts(std::move(mounts).value());

    auto entry = std::make_unique<Entry>();
    entry->container = container;
    auto job = make_job({.container = container,
                         .process = container->plan().process,
                         .fds = fds,
                         .is_init = true,
                         .attach_input = input,
                         .on_exit = [this, id](int status) { job_ended(id, "", status); }});
    if (!job.ok()) {
        container->set_init(nullptr);  // which holds the container
        return job.error();
    }
    entry->init = std::move(job).value();
    const std::lock_guard lock(mu_);
    entries_[id] = std::move(entry);
    return {};
}

Outcome<int32_t> Sandbox::start(const std::string& id) {
    RefPtr<ThreadGroup> group;
    {
        const std::lock_guard lock(mu_);
        Entry* entry = TRY(find_locked(id));
        if (entry->state != control::ContainerState::kCreated) {
            return failure(EINVAL, "container " + id + " was started already");
        }
        entry->state = control::ContainerState::kRunning;
        group = entry->init.group;
        post_event_locked({"started", id, "", {}});
    }
    const int32_t pid = group->pid();
    TaskLife::start(*group);
    return pid;
}

Outcome<std::pair<std::string, int32_t>> Sandbox::exec(const std::string& id,
                                                       control::ProcessPlan process, NamedFds fds) {
    const WakeScope scope;
    RefPtr<Container> container;
    std::string exec_id;
    {
        const std::lock_guard lock(mu_);
        Entry* entry = TRY(find_locked(id));
        if (entry->state != control::ContainerState::kRunning) {
            return failure(ESRCH, "container " + id + " is not running");
        }
        container = entry->container;
        exec_id = "exec-" + std::to_string(++exec_count_);
        entry->execs[exec_id];
    }
    auto job =
        make_job({.container = container,
                  .process = process,
                  .fds = fds,
                  .on_exit = [this, id, exec_id](int status) { job_ended(id, exec_id, status); }});
    const std::lock_guard lock(mu_);
    Entry* entry = TRY(find_locked(id));
    if (!job.ok()) {
        entry->execs.erase(exec_id);
        return job.error();
    }
    const RefPtr<ThreadGroup> group = job->group;
    entry->execs[exec_id] = std::move(job).value();
    TaskLife::start(*group);
    return std::make_pair(exec_id, group->pid());
}

// ---------------------------------------------------------------- ending

void Sandbox::post_event_locked(Event event) {
    events_[++event_count_] = std::move(event);
    if (events_.size() > kKeptEvents) {
        events_.erase(events_.begin());
    }
    tell_change_locked();
}

// Called by whichever thread ended the process, with no lock of the kernel's held.
void Sandbox::job_ended(const std::string& id, const std::string& exec_id, int wait_status) {
    RefPtr<HostConsole> console;
    RefPtr<Attachments> attached;
    control::ExitStatus status = exit_status_of(wait_status);
    {
        const std::lock_guard lock(mu_);
        const auto job = find_job_locked(id, exec_id);
        if (!job.ok()) {
            return;  // ended before create_container() was through: its error tells
        }
        // One that took the loss of a process to the kernel's OOM killer in its stride ended well.
        if (exec_id.empty() && status.shell_code() != 0) {
            status.oom_killed = (*find_locked(id))->container->oom_kills() > 0;
        }
        (*job)->exit = status;
        console = (*job)->console;
        attached = (*job)->attached;
        if (exec_id.empty()) {
            (*find_locked(id))->state = control::ContainerState::kStopped;
        }
        post_event_locked({"exited", id, exec_id, status});
    }
    if (console) {
        console->finish();
    } else if (attached) {
        attached->finish();
    }
    if (exec_id.empty() && id == plan_.exit_with) {
        // Not here: whoever ended the process holds what the answers may need.
        std::thread([this, status] { end(status); }).detach();
    }
}

void Sandbox::count_answering(int change) {
    const std::lock_guard lock(mu_);
    answering_ += change;
    if (answering_ == 0) {
        changed_.notify_all();
    }
}

void Sandbox::end(const control::ExitStatus& status) {
    const std::string text = control::to_json(status).dump();
    if (exit_status_ && ::write(exit_status_.get(), text.data(), text.size()) < 0) {
        LOG(kError, "boot", "write the exit status: %s", strerror(errno));
    }
    {
        std::unique_lock lock(mu_);
        changed_.wait_for(lock, std::chrono::seconds(1), [&] { return answering_ == 0; });
    }
    ::_exit(status.shell_code());
}

Outcome<> Sandbox::signal(const std::string& id, const std::string& exec_id, int signal, bool all,
                          OnInit on_init) {
    const WakeScope scope;
    RefPtr<Container> container;
    RefPtr<ThreadGroup> group;
    bool never_started = false;
    {
        const std::lock_guard lock(mu_);
        Job* job = TRY(find_job_locked(id, exec_id));
        Entry* entry = TRY(find_locked(id));
        container = entry->container;
        group = job->group;
        if (!all && (job->exit || !group)) {
            return failure(ESRCH, "container " + id + " is not running");
        }
        if (entry->state == control::ContainerState::kCreated && exec_id.empty() &&
            signal == SIGKILL) {
            entry->state = control::ContainerState::kRunning;
            never_started = true;
        }
    }
    const bool certain = on_init == OnInit::kDefault || signal == SIGKILL || signal == SIGSTOP;
    const SignalInfo info =
        certain ? SignalInfo::from_kernel(signal) : SignalInfo::from_process(signal, SI_USER, 0, 0);
    if (never_started) {
        TRY_AS("signal container " + id, send_signal(*group, info));
        TaskLife::start(*group);  // and ends on its way into the guest
        return {};
    }
    if (!all) {
        TRY_AS("signal container " + id, send_signal(*group, info));
        return {};
    }
    for (const auto& member : container->pid_namespace().groups()) {
        if (&member->container() == container.get()) {
            (void)send_signal(*member, info);
        }
    }
    return {};
}

Outcome<control::ExitStatus> Sandbox::wait(const std::string& id, const std::string& exec_id,
                                           int peer) {
    std::unique_lock lock(mu_);
    TRY(find_job_locked(id, exec_id));
    std::optional<control::ExitStatus> exit;
    bool gone = false;
    const bool told = wait_locked(lock, peer, [&] {
        const auto job = find_job_locked(id, exec_id);
        gone = !job.ok();
        if (!gone) {
            exit = (*job)->exit;
        }
        return gone || exit.has_value();
    });
    if (!told) {
        return failure(ECANCELED, "the client has gone");
    }
    if (!exit) {
        return failure(ENOENT, "container " + id + " was destroyed");
    }
    return *exit;
}

Outcome<> Sandbox::destroy(const std::string& id) {
    RefPtr<Container> container;
    RefPtr<ThreadGroup> never_started;
    {
        const std::lock_guard lock(mu_);
        Entry* entry = TRY(find_locked(id));
        container = entry->container;
        if (entry->state == control::ContainerState::kCreated) {
            never_started = entry->init.group;
            entry->state = control::ContainerState::kRunning;
        }
    }
    {
        const WakeScope scope;
        for (const auto& group : container->pid_namespace().groups()) {
            if (&group->container() == container.get()) {
                TaskLife::kill_group(*group, SIGKILL);
            }
        }
        if (never_started) {
            TaskLife::start(*never_started);  // and ends on its way into the guest
        }
    }
    std::unique_ptr<Entry> removed;
    {
        std::unique_lock lock(mu_);
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        const bool ended = changed_.wait_until(lock, deadline, [&] {
            const auto entry = find_locked(id);
            return !entry.ok() || (*entry)->init.exit.has_value();
        });
        if (!ended) {
            return failure(EBUSY, "container " + id + " does not end");
        }
        const auto it = entries_.find(id);
        if (it != entries_.end()) {
            removed = std::move(it->second);
            entries_.erase(it);
        }
        tell_change_locked();
    }
    const WakeScope scope;
    if (removed) {
        set_console(*container, nullptr);
        container->set_init(nullptr);
        container->set_mounts(nullptr);
        // Processes that are still on their way out hold the container.
        container->zygote().drain_pool();
        container->zygote().kill();
        removed.reset();
    }
    container.reset();
    return {};
}

// ---------------------------------------------------------------- looking

Outcome<Sandbox::State> Sandbox::state(const std::string& id) {
    const std::lock_guard lock(mu_);
    Entry* entry = TRY(find_locked(id));
    State state;
    state.id = id;
    state.state = entry->state;
    state.pid = entry->init.group ? entry->init.group->pid() : 0;
    state.exit = entry->init.exit;
    return state;
}

std::vector<Sandbox::State> Sandbox::list() {
    std::vector<std::string> ids;
    {
        const std::lock_guard lock(mu_);
        for (const auto& [id, entry] : entries_) {
            ids.push_back(id);
        }
    }
    std::vector<State> states;
    for (const auto& id : ids) {
        if (auto one = state(id); one.ok()) {
            states.push_back(std::move(one).value());
        }
    }
    return states;
}

Outcome<std::vector<control::ProcessInfo>> Sandbox::processes(const std::string& id) {
    RefPtr<Container> container;
    {
        const std::lock_guard lock(mu_);
        container = TRY(find_locked(id))->container;
    }
    std::vector<control::ProcessInfo> found;
    for (const auto& group : container->pid_namespace().groups()) {
        const RefPtr<Task> leader = group->leader();
        if (&group->container() != container.get() || !leader) {
            continue;
        }
        control::ProcessInfo info;
        info.pid = group->pid();
        info.ppid = TaskTable::parent_pid(*group);
        info.uid = leader->credentials()->uid;
        info.state = std::string(1, leader->state_letter());
        info.command = leader->name();
        info.cpu_ns = group->cpu_ns();
        info.started_at_ns = realtime_ns() - (monotonic_ns() - leader->start_time_ns());
        if (const auto mm = leader->mm_ref()) {
            info.host_pid = mm->process().pid();
            info.rss_bytes = mm->usage().resident_bytes;
        }
        found.push_back(std::move(info));
    }
    return found;
}

Outcome<Sandbox::Stats> Sandbox::stats(const std::string& id) {
    RefPtr<Container> container;
    {
        const std::lock_guard lock(mu_);
        container = TRY(find_locked(id))->container;
    }
    Stats stats;
    stats.tasks = container->task_count();
    stats.pids_limit = container->pids_limit();
    std::set<const FdTable*> seen;  // CLONE_FILES
    for (const auto& group : container->pid_namespace().groups()) {
        if (&group->container() != container.get()) {
            continue;
        }
        for (const auto& task : TaskTable::tasks_of(*group)) {
            stats.syscalls += task->syscall_count();
        }
        if (group->state() < ThreadGroup::State::kZombie) {
            stats.processes++;
        }
        const RefPtr<Task> leader = group->leader();
        const RefPtr<FdTable> fds = leader ? leader->fds_ref() : nullptr;
        if (fds && seen.insert(fds.get()).second) {
            for (const Fd fd : fds->numbers()) {
                const bool look = stats.file_descriptors++ < kCountedDescriptors;
                if (const auto file = look ? fds->get(fd) : Errno(EBADF); file.ok()) {
                    stats.sockets += dynamic_cast<Socket*>(file->get()) != nullptr ? 1 : 0;
                }
            }
        }
    }
    if (const auto init = container->init()) {
        const rlim_t limit = init->limit(RLIMIT_NOFILE).rlim_cur;
        stats.open_files_limit = limit;
    }
    if (const auto mounts = container->mounts()) {
        upper_usage(*mounts, stats.upper_bytes, stats.upper_inodes);
    }
    return stats;
}

Outcome<> Sandbox::set_paused(const std::string& id, bool paused) {
    // The guests' host processes are frozen by their cgroup, which is the runtime's; here is only
    // the state that others see.
    const std::lock_guard lock(mu_);
    Entry* entry = TRY(find_locked(id));
    const auto from = paused ? control::ContainerState::kRunning : control::ContainerState::kPaused;
    if (entry->state != from) {
        return failure(EINVAL, "container " + id + (paused ? " is not running" : " is not paused"));
    }
    entry->state = paused ? control::ContainerState::kPaused : control::ContainerState::kRunning;
    return {};
}

Outcome<> Sandbox::resize(const std::string& id, const std::string& exec_id, uint16_t rows,
                          uint16_t columns) {
    const WakeScope scope;
    RefPtr<HostConsole> console;
    {
        const std::lock_guard lock(mu_);
        console = TRY(find_job_locked(id, exec_id))->console;
    }
    if (!console) {
        return failure(ENOTTY, "container " + id + ": no terminal");
    }
    console->tty().set_window_size({rows, columns, 0, 0});
    return {};
}

Outcome<> Sandbox::attach(const std::string& id, NamedFds fds) {
    const WakeScope scope;
    RefPtr<Attachments> attached;
    bool terminal = false;
    {
        const std::lock_guard lock(mu_);
        Entry* entry = TRY(find_locked(id));
        if (entry->state != control::ContainerState::kRunning) {
            return failure(ESRCH, "container " + id + " is not running");
        }
        attached = entry->init.attached;
        terminal = entry->init.console.get() != nullptr;
    }
    if (!attached) {
        return failure(EINVAL, "container " + id + ": its streams are not the sentry's");
    }
    if (terminal && fds.contains("stderr")) {
        return failure(EINVAL, "container " + id + ": a terminal has no stderr of its own");
    }
    ScopedFd in = take_fd(fds, "stdin");
    ScopedFd out = take_fd(fds, "stdout");
    TRY_AS("attach to container " + id,
           attached->attach(std::move(in), std::move(out), take_fd(fds, "stderr")));
    return {};
}

Outcome<> Sandbox::reopen_log(const std::string& id, ScopedFd log) {
    const std::lock_guard lock(mu_);
    Job* job = TRY(find_job_locked(id, ""));
    if (!job->log) {
        return failure(EINVAL, "container " + id + " has no log");
    }
    job->log->reopen(std::move(log));
    return {};
}

Outcome<> Sandbox::change_limits(const std::string& id, const control::ShownLimits& limits) {
    const std::lock_guard lock(mu_);
    TRY(find_locked(id))->container->change_limits(limits);
    return {};
}

std::string Sandbox::stacks() {
    std::string text;
    for (const auto& one : list()) {
        RefPtr<Container> container;
        {
            const std::lock_guard lock(mu_);
            const auto entry = find_locked(one.id);
            if (!entry.ok()) {
                continue;
            }
            container = (*entry)->container;
        }
        text += "container " + one.id + "\n";
        for (const auto& group : container->pid_namespace().groups()) {
            for (const auto& task : TaskTable::tasks_of(*group)) {
                const std::string in = task->blocked_in();
                text += "  pid " + std::to_string(group->pid()) + " tid " +
                        std::to_string(task->tid()) + " " + task->name() + " " +
                        task->state_letter() + (in.empty() ? "" : " in " + in) + "\n";
            }
        }
    }
    return text;
}

uint64_t Sandbox::newest_event() {
    const std::lock_guard lock(mu_);
    return event_count_;
}

Outcome<std::pair<uint64_t, Sandbox::Event>> Sandbox::next_event(uint64_t seen, int peer) {
    std::unique_lock lock(mu_);
    if (!wait_locked(lock, peer, [&] { return event_count_ > seen; })) {
        return failure(ECANCELED, "the client has gone");
    }
    const auto it = events_.upper_bound(seen);
    return std::make_pair(it->first, it->second);
}

}  // namespace moat::kernel
