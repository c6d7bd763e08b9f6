#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "kernel/base/cleanup.h"
#include "kernel/base/log.h"
#include "runtime/container/impl.h"
#include "runtime/hooks/hooks.h"
#include "runtime/util/files.h"

namespace moat::runtime {

namespace {

/// Tears down what a failed creation made; the error that is reported stays the first one.
void undo(Launch& launch) {
    if (const auto status = launch.impl.tear_down(launch.directory, launch.record); !status.ok()) {
        LOG(kWarning, "runtime", "%s: undo: %s", launch.record.id.c_str(),
            status.error().message().c_str());
    }
}

/// Writes down what is going to be made in the way of cgroups, before it is.
Status note_cgroups(Launch& launch, const std::vector<std::string>& paths) {
    const auto* manager = TRY(launch.impl.manager());
    std::set<std::string> all;
    for (const std::string& path : paths) {
        for (std::string& directory : manager->missing(path)) {
            all.insert(std::move(directory));
        }
        if (path.rfind(std::string(cgroups::kDefaultParent) + "/", 0) == 0) {
            // The default parent is ours whoever made it: the last pod that goes takes it away.
            for (std::string& directory : manager->directories(cgroups::kDefaultParent)) {
                all.insert(std::move(directory));
            }
        }
    }
    launch.record.cgroup_directories.assign(all.begin(), all.end());
    return {};
}

Status write_pid_file(const std::string& path, pid_t pid) {
    const size_t slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const ScopedFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + directory);
    }
    return replace_file(fd.get(), slash == std::string::npos ? path : path.substr(slash + 1),
                        std::to_string(pid), Durability::kProcess, 0644);
}

std::string sandbox_cgroup(const std::string& parent, const std::string& id) {
    return (parent.empty() ? std::string(cgroups::kDefaultParent) : parent) + "/" + id;
}

/// One OCI create, from the parsed bundle on.
struct Create {
    const CreateConfig& config;
    const Spec& spec;
    const std::string& bundle;
    const Placement& placement;
    Launch& launch;
    const Record* sandbox;  ///< of the pod that is joined, else null
    const StateDirectory* sandbox_directory;

    bool joins() const { return placement.role == ContainerRole::kJoins; }

    SentryConfig sentry_config() const {
        SentryConfig sentry;
        sentry.plan.id = config.id;
        sentry.plan.exit_with = config.id;
        sentry.plan.hostname = spec.hostname;
        sentry.plan.strace = launch.impl.options.strace;
        sentry.plan.log_level = launch.impl.options.log_level;
        sentry.plan.sysctls = spec.sysctl;
        if (placement.role == ContainerRole::kAlone && spec.limits.memory_bytes.value_or(-1) > 0) {
            sentry.plan.memory_bytes = *spec.limits.memory_bytes;
        }
        const SpecNamespace* network = spec.find_namespace("network");
        if (network == nullptr) {
            sentry.plan.network = control::NetworkMode::kHost;  // that of whoever calls us
        } else if (!network->path.empty()) {
            sentry.plan.network = control::NetworkMode::kHost;
            sentry.network_namespace = network->path;
        } else {
            sentry.plan.network = control::NetworkMode::kNone;
            sentry.new_network_namespace = true;
        }
        sentry.cgroup = launch.record.pod_cgroup;
        return sentry;
    }

    Result<control::ContainerPlan> container_plan(FilePlan& files) const {
        control::ContainerPlan plan;
        plan.id = config.id;
        plan.hostname = spec.hostname;
        plan.root = files.root;
        plan.mounts = std::move(files.mounts);
        plan.masked_paths = spec.masked_paths;
        plan.uid_map = spec.uid_map.value_or(control::IdMap{});
        plan.gid_map = spec.gid_map.value_or(control::IdMap{});
        plan.readonly_paths = spec.readonly_paths;
        const SpecNamespace* pid = spec.find_namespace("pid");
        // Without one of its own, or with another's: everything that runs in the pod.
        if (pid == nullptr || !pid->path.empty()) {
            plan.pid_namespace = control::PidNamespace::kPod;
        }
        // As for pids, but the one of the pod's first container is the pod's.
        const SpecNamespace* ipc = spec.find_namespace("ipc");
        if (joins() && ipc != nullptr && ipc->path.empty()) {
            plan.ipc_namespace = control::IpcNamespace::kContainer;
        }
        plan.limits = shown(spec.limits);
        // As said by whoever makes the pod's containers (kubectl debug --target).
        constexpr std::string_view kContainerPrefix = "container:";
        if (const auto it = spec.annotations.find("dev.moat.pid-namespace");
            it != spec.annotations.end()) {
            if (it->second.rfind(kContainerPrefix, 0) != 0) {
                return Error(EINVAL, "annotations: dev.moat.pid-namespace: expected container:ID");
            }
            plan.pid_namespace = control::PidNamespace::kTarget;
            plan.pid_target = it->second.substr(kContainerPrefix.size());
        }
        if (spec.seccomp) {
            plan.seccomp = TRY(compile_seccomp(*spec.seccomp));
            plan.seccomp_log = std::count(spec.seccomp->flags.begin(), spec.seccomp->flags.end(),
                                          "SECCOMP_FILTER_FLAG_LOG") != 0;
        }
        plan.process = plan_process(spec.process);
        return plan;
    }

    Status choose_cgroups() {
        Record& record = launch.record;
        std::string wanted;
        if (!spec.cgroups_path.empty()) {
            wanted = TRY(cgroups::normalize_path(spec.cgroups_path));
        }
        if (joins()) {
            record.container_cgroup =
                wanted.empty() ? sandbox->pod_cgroup + "/" + config.id : wanted;
            return note_cgroups(launch, {record.container_cgroup});
        }
        record.pod_cgroup = wanted.empty() ? sandbox_cgroup("", config.id) : wanted;
        record.container_cgroup = record.pod_cgroup + "/" + config.id;
        return note_cgroups(launch, {record.pod_cgroup + "/sentry", record.container_cgroup});
    }

    Status run() {
        Record& record = launch.record;
        const auto* manager = TRY(launch.impl.manager());
        FilePlan files = TRY(plan_files(spec, config.id, bundle, spec.annotations));
        record.rootfs = files.gofer.mounts[0].source;
        auto plan = TRY(container_plan(files));
        TRY(choose_cgroups());
        TRY(launch.directory.save(record));

        TRY_STEP("make the container's cgroup", manager->make(record.container_cgroup));
        cgroups::Limits limits = spec.limits;
        if (limits.pids.value_or(0) > 0) {
            limits.pids = host_pids(*limits.pids);
        }
        TRY_STEP("limit the container", manager->set_limits(record.container_cgroup, limits));
        const auto cgroup_fds =
            TRY_STEP("open the container's cgroup", manager->open_join(record.container_cgroup));
        const ScopedFd oom_count = TRY_STEP("open the container's cgroup",
                                            manager->open_oom_count(record.container_cgroup));

        // A sandbox of one container: the sentry's first guest process joins, and the others are
        // its children. In a pod each container's are moved there.
        const bool alone = placement.role == ContainerRole::kAlone;
        SentryConfig sentry;
        if (!joins()) {
            sentry = sentry_config();
            for (const auto& join : cgroup_fds) {
                if (alone) {
                    sentry.guest_cgroup_fds.push_back(join.fd.get());
                }
            }
            TRY(start_sentry(launch, sentry));
        }
        // While the sentry starts up:
        const ScopedFd gofer = TRY(start_gofer(
            launch, files.gofer, (joins() ? sandbox->pod_cgroup : record.pod_cgroup) + "/sentry"));

        Pty pty;
        Stdio stdio = config.stdio;
        if (plan.process.terminal && stdio.console_fd < 0 && !config.console_socket.empty()) {
            pty = TRY(open_pty());
            TRY(send_console(config.console_socket, pty.master.get()));
            pty.master.reset();
            stdio.console_fd = pty.slave.get();
        }
        auto fds = TRY(plan_stdio(stdio, plan.process));
        fds.push_back({"gofer", gofer.get()});
        if (oom_count) {
            fds.push_back({"oom_count", oom_count.get()});
        }
        for (const auto& join : cgroup_fds) {
            if (!alone) {
                fds.push_back({"cgroup:" + join.name, join.fd.get()});
            }
        }
        record.process = plan.process;
        record.poststart = spec.hooks.poststart;
        record.poststop = spec.hooks.poststop;
        TRY(launch.directory.save(record));

        if (!joins()) {
            TRY(boot_sentry(launch, sentry.plan));
        }
        TRY(run_create_hooks());
        TRY(create_in_sentry(plan, fds));
        set_oom_score(*manager, record.container_cgroup,
                      spec.process.oom_score_adj.value_or(own_oom_score()));
        record.complete = true;
        TRY(launch.directory.save(record));
        if (!config.pid_file.empty()) {
            TRY_STEP("write the pid file",
                     write_pid_file(config.pid_file, (joins() ? *sandbox : record).sentry.pid));
        }
        return {};
    }

    Status create_in_sentry(const control::ContainerPlan& plan, const std::vector<NamedFd>& fds) {
        auto client =
            TRY(ControlClient::connect(joins() ? sandbox_directory->fd() : launch.directory.fd()));
        control::Json fields = {{"plan", control::to_json(plan)}};
        if (config.stdio.attach_stdin || config.stdio.attach_stdin_once) {
            fields["attach_stdin"] = config.stdio.attach_stdin_once ? "once" : "always";
        }
        const auto answer = client.call("create_container", std::move(fields), fds);
        if (answer.ok()) {
            return {};
        }
        std::string text = answer.error().message();
        // Its first request to the gofer carries the gofer's own complaint, unless it died.
        if (const std::string tail = launch.directory.log_tail("gofer.log"); !tail.empty()) {
            text += "; the gofer's log:\n" + tail;
        }
        if (answer.error().code() == ECONNRESET) {
            const auto& of = joins() ? *sandbox_directory : launch.directory;
            text += "; the last lines of the sentry's log:\n" + of.log_tail("sentry.log");
        }
        return Error(answer.error().code(), text);
    }

    Status run_create_hooks() {
        const SpecHooks& hooks = spec.hooks;
        if (hooks.prestart.empty() && hooks.create_runtime.empty() &&
            hooks.create_container.empty()) {
            return {};
        }
        ContainerInfo info;
        info.id = config.id;
        info.bundle = bundle;
        info.sentry_pid = (joins() ? *sandbox : launch.record).sentry.pid;
        info.annotations = spec.annotations;
        const std::string state = oci_state_json(info);
        TRY(run_hooks(hooks.prestart, "prestart", state));
        TRY(run_hooks(hooks.create_runtime, "createRuntime", state));
        return run_hooks(hooks.create_container, "createContainer", state);
    }
};

/// What a bundle says, as far as it can be told without making anything.
struct Bundle {
    std::string path;
    Spec spec;
    Placement placement;
};

Result<Bundle> read_bundle(const CreateConfig& config) {
    Bundle bundle;
    bundle.path = TRY_STEP("bundle", real_path(config.bundle));
    bundle.spec = TRY(load_spec(bundle.path));
    bundle.placement = TRY(placement_of(bundle.spec.annotations));
    if (config.id == "sentry") {
        return Error(EINVAL, "that name is taken by the sentry's own cgroup");
    }
    if (!bundle.spec.hooks.start_container.empty()) {
        return Error(ENOTSUP, "startContainer hooks would run inside the sandbox: not built");
    }
    if (bundle.spec.find_namespace("user") != nullptr && !bundle.spec.uid_map) {
        return Error(ENOTSUP, "a user namespace without mappings is not built");
    }
    return bundle;
}

}  // namespace

Status SentryRuntime::check(const CreateConfig& config) {
    const std::string step = "create " + config.id;
    const Bundle bundle = TRY_STEP(step, read_bundle(config));
    (void)TRY_STEP(step, plan_files(bundle.spec, config.id, bundle.path, bundle.spec.annotations));
    if (bundle.spec.seccomp) {
        (void)TRY_STEP(step, compile_seccomp(*bundle.spec.seccomp));
    }
    return {};
}

Status SentryRuntime::create(const CreateConfig& config) {
    const std::string step = "create " + config.id;
    const Bundle read = TRY_STEP(step, read_bundle(config));
    const std::string& bundle = read.path;
    const Spec& spec = read.spec;
    const Placement& placement = read.placement;

    // A pod that is being joined cannot go away meanwhile.
    std::optional<StateDirectory> sandbox_directory;
    Record sandbox;
    if (placement.role == ContainerRole::kJoins) {
        sandbox_directory = TRY_STEP(step + ": join sandbox " + placement.sandbox_id,
                                     StateDirectory::open(impl_->options.state_root,
                                                          placement.sandbox_id, LockMode::kShared));
        sandbox = TRY_STEP(step, sandbox_directory->load());
        if (!sandbox.has_sandbox || !sandbox.complete || !sandbox.sentry.alive()) {
            return Error(ECONNRESET, step + ": sandbox " + placement.sandbox_id + " does not run");
        }
    }

    Launch launch{*impl_,
                  TRY_STEP(step, StateDirectory::create(impl_->options.state_root, config.id)),
                  Record()};
    Record& record = launch.record;
    record.id = config.id;
    record.has_container = true;
    record.has_sandbox = placement.role != ContainerRole::kJoins;
    record.sandbox_id = record.has_sandbox ? config.id : placement.sandbox_id;
    record.bundle = bundle;
    record.annotations = spec.annotations;
    record.created_at_ns = now_ns();

    Cleanup undo_all([&] { undo(launch); });
    Create create{config,
                  spec,
                  bundle,
                  placement,
                  launch,
                  record.has_sandbox ? nullptr : &sandbox,
                  sandbox_directory ? &*sandbox_directory : nullptr};
    TRY_STEP(step, create.run());
    undo_all.release();
    return {};
}

Status SentryRuntime::create_sandbox(const SandboxConfig& config) {
    const std::string step = "create sandbox " + config.id;
    Launch launch{*impl_,
                  TRY_STEP(step, StateDirectory::create(impl_->options.state_root, config.id)),
                  Record()};
    Record& record = launch.record;
    record.id = config.id;
    record.sandbox_id = config.id;
    record.has_sandbox = true;
    record.annotations = config.annotations;
    record.created_at_ns = now_ns();

    Cleanup undo_all([&] { undo(launch); });
    std::string parent;
    if (!config.cgroup_parent.empty() && config.cgroup_parent != "/") {
        parent = TRY_STEP(step, cgroups::normalize_path(config.cgroup_parent));
    }
    record.pod_cgroup = sandbox_cgroup(parent, config.id);
    TRY_STEP(step, note_cgroups(launch, {record.pod_cgroup + "/sentry"}));
    TRY_STEP(step, launch.directory.save(record));

    SentryConfig sentry;
    sentry.plan.id = config.id;
    sentry.plan.hostname = config.hostname;
    sentry.plan.strace = impl_->options.strace;
    sentry.plan.log_level = impl_->options.log_level;
    sentry.plan.sysctls = config.sysctls;
    sentry.plan.network = config.network_namespace.empty() ? control::NetworkMode::kNone
                                                           : control::NetworkMode::kHost;
    sentry.network_namespace = config.network_namespace;
    sentry.new_network_namespace = config.network_namespace.empty();
    sentry.cgroup = record.pod_cgroup;
    sentry.limits = limits_of(config.resources);
    const auto* manager = TRY_STEP(step, impl_->manager());
    sentry.plan.memory_bytes = memory_limit_above(*manager, record.pod_cgroup);
    if (const int64_t own = config.resources.memory_limit_bytes.value_or(-1);
        own > 0 &&
        (sentry.plan.memory_bytes == 0 || static_cast<uint64_t>(own) < sentry.plan.memory_bytes)) {
        sentry.plan.memory_bytes = static_cast<uint64_t>(own);
    }
    {
        const Phase phase(impl_->options, "sentry");
        TRY_STEP(step, start_sentry(launch, sentry));
        TRY_STEP(step, boot_sentry(launch, sentry.plan));
    }
    record.complete = true;
    TRY_STEP(step, launch.directory.save(record));
    undo_all.release();
    return {};
}

}  // namespace moat::runtime
