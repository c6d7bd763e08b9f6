// Pods: their cgroup and the process that holds their namespaces.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "kernel/base/cleanup.h"
#include "kernel/base/log.h"
#include "kernel/control/messages.h"
#include "runtime/container/impl.h"
#include "runtime/native/mounts.h"
#include "runtime/native/native_runtime.h"
#include "runtime/util/files.h"

namespace moat::runtime {

namespace {

/// It takes milliseconds; a machine that needs longer than this is not going to get there.
constexpr int kPauseTimeoutMs = 30'000;

/// `runc features` takes milliseconds and prints a page or two.
constexpr int kFeaturesTimeoutMs = 10'000;
constexpr size_t kMostFeatures = 1 << 20;

bool executable(const std::string& path) {
    struct stat st {};
    return ::stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) &&
           ::access(path.c_str(), X_OK) == 0;
}

}  // namespace

Result<std::string> NativeRuntime::find_program(const std::string& configured) {
    if (!configured.empty()) {
        if (configured.front() != '/') {
            return Error(EINVAL, configured + ": not an absolute path");
        }
        return executable(configured) ? Result<std::string>(configured)
                                      : Error(ENOENT, configured + ": no such program");
    }
    const char* path = ::getenv("PATH");
    // moatd may run with a short PATH; runc is the administrator's.
    const std::string all =
        std::string(path != nullptr ? path : "") + ":/usr/local/sbin:/usr/sbin:/usr/bin";
    for (const char* name : {"runc", "crun"}) {
        for (size_t at = 0; at <= all.size();) {
            const size_t end = std::min(all.find(':', at), all.size());
            const std::string candidate = all.substr(at, end - at) + "/" + name;
            if (candidate.front() == '/' && end > at && executable(candidate)) {
                return candidate;
            }
            at = end + 1;
        }
    }
    return Error(ENOENT, "neither runc nor crun is installed");
}

bool NativeRuntime::has_id_mapped_mounts(const std::string& program) {
    int pipe[2];
    const ScopedFd executable(::open(program.c_str(), O_RDONLY | O_CLOEXEC));
    if (!executable || ::pipe2(pipe, O_CLOEXEC) != 0) {
        return false;
    }
    const ScopedFd answer(pipe[0]);
    ScopedFd answer_end(pipe[1]);
    SpawnRequest request;
    request.name = program;
    request.executable = executable.get();
    request.argv = {program, "features"};
    request.stdout_fd = answer_end.get();
    const auto process = spawn(request);
    answer_end.reset();
    std::string text;
    char piece[4096];
    pollfd ready{answer.get(), POLLIN, 0};
    while (process.ok() && text.size() < kMostFeatures &&
           ::poll(&ready, 1, kFeaturesTimeoutMs) > 0) {
        const ssize_t n = ::read(answer.get(), piece, sizeof piece);
        if (n <= 0) {
            break;
        }
        text.append(piece, static_cast<size_t>(n));
    }
    if (process.ok()) {
        (void)process->kill_and_wait();
    }
    const auto features = control::Json::parse(text, nullptr, false);
    const control::Json::json_pointer enabled("/linux/mountExtensions/idmap/enabled");
    return features.is_object() && features.contains(enabled) && features[enabled] == true;
}

NativeRuntime::NativeRuntime(Options options) : options_(std::move(options)) {}
NativeRuntime::~NativeRuntime() = default;

std::string NativeRuntime::pod_directory(const std::string& id) const {
    return options_.state_root + "/pods/" + id;
}
std::string NativeRuntime::container_directory(const std::string& id) const {
    return options_.state_root + "/containers/" + id;
}
std::string NativeRuntime::events_directory(const std::string& pod_id) const {
    return pod_directory(pod_id) + "/events";
}

Result<const cgroups::Manager*> NativeRuntime::manager() {
    const std::lock_guard lock(mu_);
    if (!manager_) {
        manager_ = TRY_STEP("find the cgroups", cgroups::detect());
        if (manager_->version() == cgroups::Version::kV1) {
            const auto mounts = TRY(read_whole_file("/proc/self/mountinfo"));
            v2_beside_ = cgroups::parse_mountinfo(mounts).v2;
        }
    }
    return manager_.get();
}

Result<std::vector<std::string>> NativeRuntime::program_directories(const std::string& cgroup) {
    std::vector<std::string> all = TRY(manager())->directories(cgroup);
    const std::lock_guard lock(mu_);
    if (!v2_beside_.empty()) {
        all.push_back(v2_beside_ + cgroup);
    }
    return all;
}

Result<NativePod> NativeRuntime::load_pod(const std::string& id) const {
    TRY(check_id(id));
    return NativePod::load(pod_directory(id));
}

Status NativeRuntime::create_sandbox(const SandboxConfig& config) {
    const std::string step = "create pod " + config.id;
    TRY_STEP(step, check_id(config.id));
    const std::string directory = pod_directory(config.id);
    TRY_STEP(step, make_directories(events_directory(config.id), 0711));
    const auto* cgroup_manager = TRY_STEP(step, manager());
    NativePod pod;
    pod.id = config.id;
    pod.host_ipc = config.host_ipc;
    pod.mapped_root = config.mapped_root;
    pod.shm = config.host_ipc ? "" : config.shm_directory;
    pod.network_namespace = config.host_network ? "" : config.network_namespace;
    std::string parent = cgroups::kDefaultParent;
    if (!config.cgroup_parent.empty() && config.cgroup_parent != "/") {
        parent = TRY_STEP(step, cgroups::normalize_path(config.cgroup_parent));
    }
    pod.cgroup = parent + "/" + config.id;
    const std::string own = pod.cgroup + "/pause";
    std::set<std::string> made;
    for (const std::string& one : cgroup_manager->missing(own)) {
        made.insert(one);
    }
    if (parent == cgroups::kDefaultParent) {
        // The default parent is ours whoever made it: the last pod that goes takes it away.
        for (const std::string& one : TRY_STEP(step, program_directories(parent))) {
            made.insert(one);
        }
    }
    // runc will make those of the hierarchies that are not ours to limit, with all their parents.
    for (size_t at = 0; at != std::string::npos;) {
        at = pod.cgroup.find('/', at + 1);
        for (const std::string& one :
             TRY_STEP(step, program_directories(pod.cgroup.substr(0, at)))) {
            if (::access(one.c_str(), F_OK) != 0) {
                made.insert(one);
            }
        }
    }
    pod.cgroup_directories.assign(made.begin(), made.end());
    TRY_STEP(step, pod.save(directory));
    Cleanup undo([&] {
        if (const Status undone = destroy_sandbox(config.id); !undone.ok()) {
            LOG(kWarning, "native", "%s: undo: %s", config.id.c_str(),
                undone.error().message().c_str());
        }
    });
    TRY_STEP(step + ": cgroup", cgroup_manager->make(own));
    TRY_STEP(step + ": limits",
             cgroup_manager->set_limits(pod.cgroup, limits_of(config.resources)));

    const MappedRoot owner = pod.mapped_root.value_or(MappedRoot());
    const std::string options = "mode=1777,size=65536k,uid=" + std::to_string(owner.uid) +
                                ",gid=" + std::to_string(owner.gid);
    if (!pod.shm.empty() && ::mount("shm", pod.shm.c_str(), "tmpfs",
                                    MS_NOSUID | MS_NODEV | MS_NOEXEC, options.c_str()) != 0) {
        return Error::from_errno(errno, step + ": mount a tmpfs at " + pod.shm);
    }
    const auto join = TRY_STEP(step, cgroup_manager->open_join(own));
    const ScopedFd program = TRY_STEP(step, open_program(options_.pause_path, "moat-pause"));
    int pipe[2];
    if (::pipe2(pipe, O_CLOEXEC) != 0) {
        return Error::from_errno(errno, step + ": pipe");
    }
    const ScopedFd answer(pipe[0]);
    ScopedFd answer_end(pipe[1]);
    SpawnRequest request;
    request.name = "moat-pause";
    request.executable = program.get();
    request.argv = {"moat-pause"};
    request.namespaces = CLONE_NEWPID;
    if (!config.host_ipc) {
        request.namespaces |= CLONE_NEWIPC;
    }
    ScopedFd network;
    if (!config.host_network) {
        request.namespaces |= CLONE_NEWUTS;
        request.argv.insert(request.argv.end(), {"--hostname", config.hostname});
        network.reset(::open(config.network_namespace.c_str(), O_RDONLY | O_CLOEXEC));
        if (!network) {
            return Error::from_errno(
                errno, step + ": open the network namespace " + config.network_namespace);
        }
        request.network_namespace = network.get();
    }
    ScopedFd user;
    if (pod.mapped_root) {
        user = TRY_STEP(step, user_namespace_of(pod.network_namespace));
        request.user_namespace = user.get();
    }
    for (const auto& [key, value] : config.sysctls) {
        request.argv.push_back(key + "=" + value);
    }
    for (const auto& one : join) {
        request.cgroup_fds.push_back(one.fd.get());
    }
    request.fds = {answer_end.get()};
    pod.pause = TRY_STEP(step, spawn(request));
    answer_end.reset();
    TRY_STEP(step, pod.save(directory));
    pollfd ready{answer.get(), POLLIN, 0};
    char text[512];
    const int polled = ::poll(&ready, 1, kPauseTimeoutMs);
    const ssize_t n = polled > 0 ? ::read(answer.get(), text, sizeof text) : 0;
    if (n != 2 || text[0] != 'o') {
        return Error(EIO, step + ": moat-pause: " +
                              (n > 0 ? std::string(text, static_cast<size_t>(n))
                                     : "it ended without an answer"));
    }
    undo.release();
    return {};
}

Status NativeRuntime::destroy_sandbox(const std::string& id) {
    const std::string step = "destroy pod " + id;
    const auto pod = load_pod(id);
    if (!pod.ok()) {
        // Killed before the record was written: nothing but the directories.
        return pod.error().code() == ENOENT ? remove_tree(pod_directory(id))
                                            : pod.error().within(step);
    }
    const std::string containers = options_.state_root + "/containers";
    const auto ids = list_ids(containers);
    if (ids.ok()) {
        for (const std::string& container_id : *ids) {
            const auto container = load_container(container_id);
            if (container.ok() && container->pod_id == id) {
                TRY_STEP(step, tear_down(*container));
            }
        }
    }
    TRY_STEP(step, pod->pause.kill_and_wait());
    const auto* cgroup_manager = TRY_STEP(step, manager());
    if (!pod->cgroup.empty()) {
        TRY_STEP(step, cgroup_manager->kill(pod->cgroup));
    }
    TRY_STEP(step, cgroups::remove(pod->cgroup_directories));
    if (!pod->shm.empty()) {
        TRY_STEP(step, unmount_all(pod->shm));
    }
    TRY_STEP(step, remove_tree(pod_directory(id)));
    return {};
}

bool NativeRuntime::sandbox_alive(const std::string& sandbox_id) {
    const auto pod = load_pod(sandbox_id);
    return pod.ok() && pod->pause.alive();
}

Result<Stats> NativeRuntime::sandbox_stats(const std::string& sandbox_id) {
    const std::string step = "statistics of pod " + sandbox_id;
    const NativePod pod = TRY_STEP(step, load_pod(sandbox_id));
    const auto* cgroup_manager = TRY_STEP(step, manager());
    Stats out;
    static_cast<cgroups::Statistics&>(out) = TRY_STEP(step, cgroup_manager->statistics(pod.cgroup));
    out.processes = cgroup_manager->processes(pod.cgroup).size();
    out.cgroup = pod.cgroup;
    return out;
}

}  // namespace moat::runtime
