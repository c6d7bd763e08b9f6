// Containers from create to remove.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/base/cleanup.h"
#include "kernel/base/log.h"
#include "runtime/container/impl.h"
#include "runtime/native/mounts.h"
#include "runtime/native/native_runtime.h"
#include "runtime/native/spec.h"
#include "runtime/util/files.h"

namespace moat::runtime {

namespace {

/// Of a message of another program's.
bool says_full(const std::string& text) {
    return text.find("o space left on device") != std::string::npos;
}

/// runc takes tens of milliseconds; on a machine that needs longer than this nothing will come.
constexpr int kCreateTimeoutMs = 120'000;
/// For a start that a killed moatd has left in progress; a monitor's own are answered.
constexpr int kLookAgainMs = 5;
/// How long a dead container's monitor may take to deliver the last output.
constexpr int kMonitorPatienceMs = 15'000;
constexpr const char* kProgramPath =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

}  // namespace

Result<NativeContainer> NativeRuntime::load_container(const std::string& id) const {
    TRY(check_id(id));
    const std::string directory = container_directory(id);
    NativeContainer container = TRY(NativeContainer::load(directory));
    // The one first: its monitor writes `starting` before and `init` after.
    container.starting = ::access((directory + "/starting").c_str(), F_OK) == 0;
    if (const auto text = read_whole_file(directory + "/init"); text.ok()) {
        char* end;
        container.init.pid = static_cast<pid_t>(::strtol(text->c_str(), &end, 10));
        container.init.start_time = ::strtoull(end, nullptr, 10);
        container.starting = false;
    }
    return container;
}

Result<NativeContainer> NativeRuntime::settled_container(const std::string& id) const {
    for (int64_t left_ms = kCreateTimeoutMs;; left_ms -= kLookAgainMs) {
        NativeContainer container = TRY(load_container(id));
        const std::string events = events_directory(container.pod_id);
        if (!container.starting || read_exit(events, id) || !read_monitor(events, id).alive()) {
            return container;
        }
        if (left_ms <= 0) {
            return Error(ETIMEDOUT, id + ": its start does not come to an end");
        }
        ::usleep(kLookAgainMs * 1000);
    }
}

Status NativeRuntime::create(const CreateConfig& config) {
    const std::string step = "create " + config.id;
    TRY_STEP(step, check_id(config.id));
    std::string pod_id;
    const std::string text = TRY_STEP(step, read_whole_file(config.bundle + "/config.json"));
    if (const auto json = control::Json::parse(text, nullptr, false); json.is_object()) {
        pod_id = control::get_string(json.value("annotations", control::Json::object()),
                                     "io.kubernetes.cri.sandbox-id");
    }
    const NativePod pod = TRY_STEP(step + ": pod", load_pod(pod_id));
    if (!pod.pause.alive()) {
        return Error(ECONNRESET, step + ": the pod's pause process is gone");
    }
    if (::access(container_directory(config.id).c_str(), F_OK) == 0) {
        return Error(EEXIST, step + ": it is there already");
    }
    NativeContainer container;
    container.id = config.id;
    container.pod_id = pod_id;
    container.bundle = config.bundle;
    container.cgroup = pod.cgroup + "/" + config.id;
    container.created_at_ns = now_ns();
    TRY_STEP(step, make_directories(container_directory(config.id), 0711));
    TRY_STEP(step, container.save(container_directory(config.id)));
    Cleanup undo([&] {
        if (const Status undone = tear_down(container); !undone.ok()) {
            LOG(kWarning, "native", "%s: undo: %s", config.id.c_str(),
                undone.error().message().c_str());
        }
    });
    TRY_STEP(step, prepare(config, container, pod));
    TRY_STEP(step, start_monitor(config, container));
    container.complete = true;
    TRY_STEP(step, container.save(container_directory(config.id)));
    undo.release();
    return {};
}

Status NativeRuntime::prepare(const CreateConfig& config, NativeContainer& container,
                              const NativePod& pod) {
    const std::string file = config.bundle + "/config.json";
    NativeSpec spec = TRY(native_spec(TRY(read_whole_file(file)), pod, container));
    if (!spec.huge_pages.empty()) {
        // runc takes a cgroup that is there and empty.
        cgroups::Limits ours;
        ours.huge_pages = std::move(spec.huge_pages);
        const auto* cgroup_manager = TRY(manager());
        TRY(cgroup_manager->make(container.cgroup));
        TRY(cgroup_manager->set_limits(container.cgroup, ours));
    }
    TRY(mount_root(container, pod, spec.lower));
    const ScopedFd bundle(::open(config.bundle.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!bundle) {
        return Error::from_errno(errno, "open " + config.bundle);
    }
    return replace_file(bundle.get(), "config.json", spec.config, Durability::kProcess);
}

Status NativeRuntime::start_monitor(const CreateConfig& config, const NativeContainer& container) {
    const std::string directory = container_directory(container.id);
    const auto* cgroup_manager = TRY(manager());
    const ScopedFd program = TRY(open_program(options_.monitor_path, "moat-monitor"));
    const ScopedFd log(::open((directory + "/monitor.log").c_str(),
                              O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    int pipe[2];
    if (!log || ::pipe2(pipe, O_CLOEXEC) != 0) {
        return Error::from_errno(errno, "open monitor.log and a pipe");
    }
    const ScopedFd answer(pipe[0]);
    ScopedFd answer_end(pipe[1]);
    SpawnRequest request;
    request.name = "moat-monitor";
    request.executable = program.get();
    request.argv = {
        "moat-monitor",   "container",    "--program",     options_.program,
        "--program-root", program_root(), "--program-log", directory + "/runc.log",
        "--id",           container.id,   "--bundle",      config.bundle,
        "--state",        directory,      "--events",      events_directory(container.pod_id)};
    for (const std::string& one : cgroup_manager->directories(container.cgroup)) {
        request.argv.insert(request.argv.end(), {"--cgroup", one});
    }
    request.env = {kProgramPath};
    request.fds = {answer_end.get()};
    if (config.stdio.cri_log_fd >= 0) {
        request.fds.push_back(config.stdio.cri_log_fd);
        request.argv.push_back("--log");
    }
    const auto spec =
        control::Json::parse(TRY(read_whole_file(config.bundle + "/config.json")), nullptr, false);
    if (spec.is_object() &&
        spec.value("process", control::Json::object()).value("terminal", false)) {
        request.argv.push_back("--terminal");
    }
    if (config.stdio.attach_stdin) {
        request.argv.push_back("--stdin");
        if (config.stdio.attach_stdin_once) {
            request.argv.push_back("--stdin-once");
        }
    }
    request.stderr_fd = log.get();
    const ProcessRef monitor = TRY(spawn(request));
    answer_end.reset();
    std::string text;
    char buffer[4096];
    for (;;) {
        pollfd ready{answer.get(), POLLIN, 0};
        const int polled = ::poll(&ready, 1, kMonitorPatienceMs);
        if (polled < 0 && errno == EINTR) {
            continue;
        }
        const ssize_t n = polled > 0 ? ::read(answer.get(), buffer, sizeof buffer) : 0;
        if (n <= 0) {
            break;
        }
        text.append(buffer, static_cast<size_t>(n));
    }
    if (text == "ready\n") {
        return {};
    }
    (void)monitor.kill_and_wait();
    if (text.rfind("error ", 0) == 0) {
        text.erase(0, 6);
        text.erase(text.find_last_not_of('\n') + 1);
        // The monitor's word or runc's: strerror(3) and Go differ in the first letter.
        return Error(says_full(text) ? ENOSPC : EIO, text);
    }
    return Error(EIO, "moat-monitor: it ended without an answer");
}

Result<ProcessRef> NativeRuntime::init(const NativeContainer& container) const {
    if (!container.complete || read_exit(events_directory(container.pod_id), container.id) ||
        !container.init.alive()) {
        return Error(ESRCH, container.id + ": it does not run");
    }
    return container.init;
}

Status NativeRuntime::start(const std::string& id) {
    const std::string step = "start " + id;
    const NativeContainer container = TRY_STEP(step, load_container(id));
    if (!container.complete) {
        return Error(EINVAL, step + ": it was not created");
    }
    TRY_STEP(step, ask_monitor(id, "start", {}, kCreateTimeoutMs));
    return {};
}

Result<ContainerInfo> NativeRuntime::state(const std::string& id) {
    ContainerInfo info;
    info.id = id;
    if (const auto pod = load_pod(id); pod.ok()) {
        info.sandbox_id = id;
        info.sentry_pid = pod->pause.alive() ? pod->pause.pid : 0;
        return info;
    }
    const NativeContainer container = TRY_STEP("state of " + id, settled_container(id));
    const std::string events = events_directory(container.pod_id);
    info.sandbox_id = container.pod_id;
    info.bundle = container.bundle;
    info.created_at_ns = container.created_at_ns;
    info.exit = read_exit(events, id);
    if (!info.exit && container.complete && !read_monitor(events, id).alive()) {
        // Once more: it may have written the one and ended between our two looks.
        info.exit = read_exit(events, id);
        if (!info.exit) {
            TRY_STEP("state of " + id, settle_lost_monitor(container));
            info.exit = read_exit(events, id);
        }
    }
    if (info.exit) {
        info.state = ContainerState::kStopped;
        return info;
    }
    info.sentry_pid = container.init.pid;
    info.state = container.init.pid == 0 ? ContainerState::kCreated : ContainerState::kRunning;
    return info;
}

Status NativeRuntime::settle_lost_monitor(const NativeContainer& container) {
    // Nobody reads what it writes and nobody can tell how it ends: as containerd does when a shim
    // dies, it is killed and said to have been.
    const auto* cgroup_manager = TRY(manager());
    TRY(container.init.kill_and_wait());
    TRY(cgroup_manager->kill(container.cgroup));
    LOG(kWarning, "native", "%s: its monitor was killed, and so is it", container.id.c_str());
    return write_exit(events_directory(container.pod_id), container.id,
                      ExitStatus{0, SIGKILL, false, now_ns()});
}

Status NativeRuntime::kill(const std::string& id, int signal, bool all) {
    const std::string step = "kill " + id;
    const NativeContainer container = TRY_STEP(step, load_container(id));
    const ProcessRef process = TRY_STEP(step, init(container));
    if (all) {
        const auto* cgroup_manager = TRY_STEP(step, manager());
        if (signal == SIGKILL) {
            return cgroup_manager->kill(container.cgroup);
        }
        for (const pid_t pid : cgroup_manager->processes(container.cgroup)) {
            ::kill(pid, signal);
        }
        return {};
    }
    const ScopedFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0)));
    if (!process.alive() || !pidfd ||
        ::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) != 0) {
        return Error::from_errno(pidfd ? errno : ESRCH, step);
    }
    return {};
}

/// Undoes everything that the record says; what is gone already is success. The record goes last.
Status NativeRuntime::tear_down(const NativeContainer& container) {
    const std::string step = "remove " + container.id;
    const std::string events = events_directory(container.pod_id);
    const auto* cgroup_manager = TRY_STEP(step, manager());
    // A frozen process does not even die on v1. ENOENT: a removal before this one got that far.
    if (const Status thawed = cgroup_manager->thaw(container.cgroup);
        !thawed.ok() && thawed.error().code() != ENOENT) {
        return thawed.error().within(step);
    }
    const ProcessRef monitor = read_monitor(events, container.id);
    if (container.init.pid == 0 && !read_exit(events, container.id)) {
        // Never started; what has begun to start has been waited for.
        TRY_STEP(step, monitor.kill_and_wait());
    }
    TRY_STEP(step, container.init.kill_and_wait());
    TRY_STEP(step, cgroup_manager->kill(container.cgroup));
    if (monitor.alive()) {
        // It ends by itself when all output is delivered.
        const ScopedFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, monitor.pid, 0)));
        pollfd ended{pidfd.get(), POLLIN, 0};
        (void)::poll(&ended, 1, kMonitorPatienceMs);
    }
    TRY_STEP(step, monitor.kill_and_wait());
    TRY_STEP(step, cgroups::remove(TRY_STEP(step, program_directories(container.cgroup))));
    TRY_STEP(step, remove_tree(program_root() + "/" + container.id));
    TRY_STEP(step, unmount_all(container.rootfs()));
    for (const char* suffix : {".monitor", ".exit", ".exit.new"}) {
        ::unlink((events + "/" + container.id + suffix).c_str());
    }
    return remove_tree(container_directory(container.id));
}

Status NativeRuntime::remove(const std::string& id, bool force) {
    const auto container = settled_container(id);
    if (!container.ok()) {
        if (container.error().code() == ENOENT) {
            TRY(remove_tree(container_directory(id)));
        }
        return container.error().within("remove " + id);
    }
    if (!force && init(*container).ok()) {
        return Error(EBUSY, "remove " + id + ": it runs");
    }
    return tear_down(*container);
}

Result<ExitStatus> NativeRuntime::wait(const std::string& id) {
    const std::string step = "wait for " + id;
    for (;;) {
        const ContainerInfo info = TRY_STEP(step, state(id));
        if (info.exit) {
            return *info.exit;
        }
        const ProcessRef monitor = read_monitor(events_directory(info.sandbox_id), id);
        const ScopedFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, monitor.pid, 0)));
        if (pidfd && monitor.alive()) {
            pollfd ended{pidfd.get(), POLLIN, 0};
            (void)::poll(&ended, 1, -1);
        }
    }
}

Status NativeRuntime::ask_monitor(const std::string& id, const std::string& request,
                                  const std::vector<int>& fds, int timeout_ms) {
    const ScopedFd directory(
        ::open(container_directory(id).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const ScopedFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/control.sock",
             directory.get());
    if (!directory || !fd ||
        ::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
        return errno == ENOENT || errno == ECONNREFUSED
                   ? Error(ESRCH, id + ": it does not run")
                   : Error::from_errno(errno, id + ": its monitor");
    }
    iovec vector{const_cast<char*>(request.data()), request.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
        memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
    }
    const timeval patience{timeout_ms / 1000, 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char answer[4096];
    if (::sendmsg(fd.get(), &message, MSG_NOSIGNAL) < 0) {
        return Error::from_errno(errno, id + ": ask its monitor");
    }
    const ssize_t n = ::recv(fd.get(), answer, sizeof answer, 0);
    if (n <= 0) {
        return Error(n == 0 ? ESRCH : errno, id + ": its monitor gave no answer");
    }
    const std::string text(answer, static_cast<size_t>(n));
    return text == "ok"
               ? Status()
               : Status(Error(says_full(text) ? ENOSPC : EINVAL, text.substr(text.find(' ') + 1)));
}

Status NativeRuntime::reopen_log(const std::string& id, int log_fd) {
    TRY(check_id(id));
    return ask_monitor(id, "reopen", {log_fd});
}

Status NativeRuntime::attach(const std::string& id, const AttachStdio& stdio) {
    TRY(check_id(id));
    std::string request = "attach ";
    std::vector<int> fds;
    for (const auto& [letter, fd] :
         {std::pair{'i', stdio.stdin_fd}, {'o', stdio.stdout_fd}, {'e', stdio.stderr_fd}}) {
        if (fd >= 0) {
            request += letter;
            fds.push_back(fd);
        }
    }
    return ask_monitor(id, request, fds);
}

Status NativeRuntime::update(const std::string& id, const Resources& resources) {
    const std::string step = "update " + id;
    const auto* cgroup_manager = TRY_STEP(step, manager());
    if (const auto pod = load_pod(id); pod.ok()) {
        return cgroup_manager->set_limits(
            pod->cgroup, within_parent(*cgroup_manager, pod->cgroup, limits_of(resources)));
    }
    const NativeContainer container = TRY_STEP(step, load_container(id));
    TRY_STEP(step, init(container));
    TRY_STEP(step, cgroup_manager->set_limits(container.cgroup, limits_of(resources)));
    return {};
}

Status NativeRuntime::pause(const std::string& id) {
    const NativeContainer container = TRY_STEP("pause " + id, load_container(id));
    TRY_STEP("pause " + id, init(container));
    return TRY_STEP("pause " + id, manager())->freeze(container.cgroup);
}

Status NativeRuntime::resume(const std::string& id) {
    const NativeContainer container = TRY_STEP("resume " + id, load_container(id));
    return TRY_STEP("resume " + id, manager())->thaw(container.cgroup);
}

}  // namespace moat::runtime
