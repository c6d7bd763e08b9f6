#include "kernel/boot/job.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>

#include "kernel/boot/mounts.h"
#include "kernel/fs/dev/devices.h"
#include "kernel/fs/devpts/devpts.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/stdio/host_stream.h"
#include "kernel/fs/vfs.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task_life.h"

namespace moat::kernel {

namespace {

/// What a job's descriptors 0 to 2 are, before it runs.
struct Streams {
    RefPtr<File> files[3];
    RefPtr<Tty> terminal;  ///< instead: opened by the process itself, as its session's
};

RefPtr<Credentials> credentials_of(const control::ContainerPlan& container,
                                   const control::ProcessPlan& plan) {
    auto c = make_ref<Credentials>();
    c->uid_count = container.uid_map.length;
    c->gid_count = container.gid_map.length;
    c->uid = c->euid = c->suid = c->fsuid = plan.uid;
    c->gid = c->egid = c->sgid = c->fsgid = plan.gid;
    c->groups = plan.additional_gids;
    std::sort(c->groups.begin(), c->groups.end());
    c->bounding = plan.capabilities.bounding;
    c->effective = plan.capabilities.effective;
    c->permitted = plan.capabilities.permitted;
    c->inheritable = plan.capabilities.inheritable;
    c->ambient = plan.capabilities.ambient;
    c->no_new_privs = plan.no_new_privileges;
    return c;
}

int resource_number(const std::string& name) {
    static const std::pair<const char*, int> kNames[] = {
        {"RLIMIT_CPU", RLIMIT_CPU},           {"RLIMIT_FSIZE", RLIMIT_FSIZE},
        {"RLIMIT_DATA", RLIMIT_DATA},         {"RLIMIT_STACK", RLIMIT_STACK},
        {"RLIMIT_CORE", RLIMIT_CORE},         {"RLIMIT_RSS", RLIMIT_RSS},
        {"RLIMIT_NPROC", RLIMIT_NPROC},       {"RLIMIT_NOFILE", RLIMIT_NOFILE},
        {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},   {"RLIMIT_AS", RLIMIT_AS},
        {"RLIMIT_LOCKS", RLIMIT_LOCKS},       {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
        {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE}, {"RLIMIT_NICE", RLIMIT_NICE},
        {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},     {"RLIMIT_RTTIME", RLIMIT_RTTIME}};
    for (const auto& [known, number] : kNames) {
        if (name == known) {
            return number;
        }
    }
    return -1;
}

Outcome<> attach_terminal(const JobRequest& request, Streams& streams, Job& job) {
    const control::ProcessPlan& process = request.process;
    Container& container = *request.container;
    ScopedFd host = take_fd(request.fds, "console");
    if (ScopedFd log = take_fd(request.fds, "log")) {
        job.log = make_ref<CriLogSink>(std::move(log));
    }
    if (!host && !job.log) {
        return failure(EINVAL, "process.terminal without a console or log descriptor");
    }
    const RefPtr<Tty> tty = TRY(allocate_terminal(container, process.uid, process.gid));
    if (process.console_rows != 0) {
        tty->set_window_size({process.console_rows, process.console_columns, 0, 0});
    }
    if (request.is_init) {
        set_console(container, tty);
    }
    if (job.log) {
        job.attached = make_ref<Attachments>(make_terminal_sink(tty));
    }
    job.console = TRY_AS("attach the console",
                         HostConsole::start(std::move(host), tty, job.log, job.attached));
    streams.terminal = tty;
    return {};
}

Outcome<> attach_files(const JobRequest& request, Streams& streams, Job& job) {
    static const char* const kNames[3] = {"stdin", "stdout", "stderr"};
    const control::ProcessPlan& process = request.process;
    const control::StdioKind kinds[3] = {process.stdin_kind, process.stdout_kind,
                                         process.stderr_kind};
    RefPtr<AttachedInput> input;
    if (request.attach_input) {
        input = make_ref<AttachedInput>(*request.attach_input);
    }
    if (input || kinds[1] == control::StdioKind::kCriLog) {
        job.attached = make_ref<Attachments>(input);
    }
    for (int i = 0; i < 3; i++) {
        const uint32_t flags = i == 0 ? O_RDONLY : O_WRONLY;
        switch (kinds[i]) {
            case control::StdioKind::kFd: {
                ScopedFd host = take_fd(request.fds, kNames[i]);
                if (!host) {
                    return failure(EINVAL, std::string("no descriptor for ") + kNames[i]);
                }
                streams.files[i] = TRY_AS(std::string("attach ") + kNames[i],
                                          make_host_stream(std::move(host), flags));
                break;
            }
            case control::StdioKind::kCriLog:
                if (!job.log) {
                    ScopedFd log = take_fd(request.fds, "log");
                    if (!log) {
                        return failure(EINVAL, "no descriptor for the log");
                    }
                    job.log = make_ref<CriLogSink>(std::move(log));
                }
                streams.files[i] = make_cri_log_file(
                    job.log, i == 2 ? CriLogSink::Stream::kStderr : CriLogSink::Stream::kStdout,
                    job.attached);
                break;
            default:
                streams.files[i] =
                    i == 0 && input ? make_attached_input_file(input) : make_null_file(flags);
                break;
        }
    }
    return {};
}

/// Descriptors 0 to 2 and the working directory, by the new process itself.
Status prepare(Task& task, Streams& streams, const std::string& cwd) {
    for (RefPtr<File>& stream : streams.files) {
        RefPtr<File> file = std::move(stream);
        if (streams.terminal) {
            file = TRY(streams.terminal->open_near(task, O_RDWR | O_NOCTTY));
        }
        TRY(task.fds().install(std::move(file), CloseOnExec::kNo, 1024));
    }
    // runc makes a working directory that is missing; so do people expect.
    auto where = resolve(task, kCwd, cwd, kDirectory);
    if (!where.ok() && where.error() == ENOENT) {
        TRY(make_directory_path(task, cwd));
        where = resolve(task, kCwd, cwd, kDirectory);
    }
    task.fs().set_cwd(TRY(std::move(where)));
    return {};
}

}  // namespace

Outcome<Job> make_job(JobRequest request) {
    const control::ProcessPlan& process = request.process;
    Container& container = *request.container;
    SpawnArguments spawn;
    for (const auto& limit : process.rlimits) {
        const int number = resource_number(limit.type);
        if (number < 0) {
            return failure(EINVAL, "process.rlimits: unknown type " + limit.type);
        }
        spawn.limits.push_back({number, {limit.soft, limit.hard}});
    }
    Job job;
    Streams streams;
    TRY(process.terminal ? attach_terminal(request, streams, job)
                         : attach_files(request, streams, job));
    const RefPtr<MountNamespace> mounts = container.mounts();
    if (!mounts) {
        return failure(ESRCH, "container " + container.id() + " was destroyed meanwhile");
    }
    spawn.container = request.container;
    spawn.arguments = process.args;
    spawn.environment = process.env;
    spawn.credentials = credentials_of(container.plan(), process);
    spawn.fs = make_ref<FsContext>(mounts, mounts->root(), mounts->root(), process.umask);
    spawn.fds = make_ref<FdTable>();
    spawn.is_init = request.is_init;
    spawn.terminal = streams.terminal;
    spawn.on_exit = std::move(request.on_exit);
    spawn.prepare = [&](Task& task) { return prepare(task, streams, process.cwd); };
    auto group = TaskLife::spawn(std::move(spawn));
    if (!group.ok()) {
        const std::string command = process.args.empty() ? "(no command)" : process.args[0];
        if (job.console) {
            job.console->finish();
        }
        return failure(group.error(), "start " + command + " in container " + container.id());
    }
    job.group = std::move(group).value();
    return job;
}

}  // namespace moat::kernel
