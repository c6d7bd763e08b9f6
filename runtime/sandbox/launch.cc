// Starting a sandbox's two kinds of processes.

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/container/impl.h"
#include "runtime/util/files.h"

namespace moat::runtime {

namespace {

/// nobody: owns nothing on the host.
constexpr uid_t kSentryUser = 65534;
/// Booting takes milliseconds; a machine that needs longer than this is not going to get there.
constexpr int kBootTimeoutMs = 30000;

/// As kubelet has it for the processes that pods stand on: when a pod as a whole has used up its
/// memory, one of its containers goes, not all of them.
constexpr const char* kHelperOomScore = "-998";

std::vector<int> raw(const std::vector<cgroups::JoinFd>& fds) {
    std::vector<int> out;
    for (const auto& fd : fds) {
        out.push_back(fd.fd.get());
    }
    return out;
}

}  // namespace

Result<ScopedFd> open_program(const std::string& configured, const char* name) {
    std::string path = configured;
    if (path.empty()) {
        char self[PATH_MAX];
        const ssize_t n = ::readlink("/proc/self/exe", self, sizeof self - 1);
        if (n < 0) {
            return Error::from_errno(errno, "read /proc/self/exe");
        }
        path.assign(self, n);
        const std::string folder = path.substr(0, path.rfind('/') + 1);
        path = folder + name;
        // Installed, `moat` is in bin and what it starts is not for people to call.
        if (const std::string installed = folder + "../lib/moat/" + name;
            ::access(path.c_str(), F_OK) != 0 && ::access(installed.c_str(), F_OK) == 0) {
            path = installed;
        }
    }
    ScopedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, std::string("find the program ") + name + ": open " + path);
    }
    return fd;
}

Status start_sentry(Launch& launch, const SentryConfig& config) {
    const auto* manager = TRY(launch.impl.manager());
    const ScopedFd program = TRY(open_program(launch.impl.options.sentry_path, "moat-sentry"));
    const std::string own = config.cgroup + "/sentry";
    {
        const Phase phase(launch.impl.options, "cgroup");
        TRY_STEP("make the pod's cgroup", manager->make(own));
        TRY_STEP("limit the pod", manager->set_limits(config.cgroup, config.limits));
    }
    const auto join = TRY_STEP("open the pod's cgroup", manager->open_join(own));
    const ScopedFd log = TRY(launch.directory.open_log("sentry.log"));
    const ScopedFd control = TRY(listen_in(launch.directory.fd(), "control.sock"));

    ScopedFd network;
    SpawnRequest request;
    request.name = "moat-sentry";
    request.namespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;
    if (!config.network_namespace.empty()) {
        network.reset(::open(config.network_namespace.c_str(), O_RDONLY | O_CLOEXEC));
        if (!network) {
            return Error::from_errno(errno,
                                     "open the network namespace " + config.network_namespace);
        }
        request.network_namespace = network.get();
    } else if (config.new_network_namespace) {
        request.namespaces |= CLONE_NEWNET;
        request.loopback_up = true;
    }
    request.executable = program.get();
    request.argv = {"moat-sentry", "--control-fd", "3"};
    request.fds = {control.get()};
    for (const int fd : config.guest_cgroup_fds) {
        request.argv.push_back("--cgroup-fd");
        request.argv.push_back(std::to_string(3 + request.fds.size()));
        request.fds.push_back(fd);
    }
    request.stderr_fd = log.get();
    request.cgroup_fds = raw(join);
    request.empty_root = true;
    request.oom_score_adj = kHelperOomScore;
    request.uid = kSentryUser;
    request.no_new_privs = true;
    request.raise_nofile = true;
    launch.record.sentry = TRY(spawn(request));
    return {};
}

Status boot_sentry(Launch& launch, const control::SandboxPlan& plan) {
    auto client = TRY(ControlClient::connect(launch.directory.fd()));
    ScopedFd exit_status;
    std::vector<NamedFd> fds;
    if (!plan.exit_with.empty()) {
        exit_status = TRY(launch.directory.open_log(kExitStatusFile));
        fds.push_back({"exit_status", exit_status.get()});
    }
    // The listening socket dies with the sentry, so its death ends the call at once.
    const auto answer =
        client.call("boot", {{"plan", control::to_json(plan)}}, fds, kBootTimeoutMs);
    if (!answer.ok()) {
        const std::string tail = launch.directory.log_tail("sentry.log");
        return Error(answer.error().code(),
                     "boot the sentry: " + answer.error().message() +
                         (tail.empty() ? "" : "; the last lines of its log:\n" + tail));
    }
    return {};
}

Result<ScopedFd> start_gofer(Launch& launch, const gofer::GoferPlan& plan,
                             const std::string& cgroup) {
    const Phase phase(launch.impl.options, "gofer");
    const auto* manager = TRY(launch.impl.manager());
    const ScopedFd program = TRY(open_program(launch.impl.options.gofer_path, "moat-gofer"));
    const auto join = TRY_STEP("open the pod's cgroup", manager->open_join(cgroup));
    const ScopedFd log = TRY(launch.directory.open_log("gofer.log"));
    const ScopedFd plan_fd = TRY(memory_file("moat-gofer-plan", gofer_plan_json(plan)));
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        return Error::from_errno(errno, "make the gofer's socket pair");
    }
    ScopedFd ours(ends[0]);
    const ScopedFd its(ends[1]);

    SpawnRequest request;
    request.name = "moat-gofer";
    request.namespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET;
    request.executable = program.get();
    request.argv = {"moat-gofer", "--socket-fd", "3", "--plan-fd", "4"};
    request.fds = {its.get(), plan_fd.get()};
    request.stderr_fd = log.get();
    request.cgroup_fds = raw(join);
    request.oom_score_adj = kHelperOomScore;
    request.raise_nofile = true;
    launch.record.gofer = TRY(spawn(request));
    return ours;
}

}  // namespace moat::runtime
