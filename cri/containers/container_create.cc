#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "api.pb.h"
#include "cri/base/fault_point.h"
#include "cri/base/files.h"
#include "cri/base/log.h"
#include "cri/base/settings.h"
#include "cri/base/texts.h"
#include "cri/containers/config_check.h"
#include "cri/containers/container_manager.h"
#include "cri/containers/image_volumes.h"
#include "cri/containers/resources.h"
#include "cri/containers/spec.h"
#include "cri/events/container_events.h"
#include "cri/images/image_store.h"
#include "cri/pods/pod_files.h"
#include "cri/pods/pod_manager.h"
#include "kernel/base/cleanup.h"
#include "runtime/runtime.h"

namespace moat::cri {

namespace {

/// EINVAL where what lies at the log's path is the client's affair, else the host's error.
Error log_error(const std::string& path, const std::string& step) {
    switch (errno) {
        case ELOOP:
        case ENOTDIR:
        case EISDIR:
        case ENXIO:  // a FIFO
        case ENAMETOOLONG:
            return invalid_argument("config.log_path: " + step + " " + path + ": " +
                                    strerror(errno));
        default:
            return host_error(Error::from_errno(errno, step + " " + path), "log");
    }
}

/// The container's log, for appending; its directories are made. Without one its output is still
/// taken by the sentry, for those who attach. Others may be able to write below the pod's log
/// directory; where root writes they do not decide: no link is followed, and a log is a file.
Result<ScopedFd> open_log(const std::string& directory, const std::string& log_path) {
    if (directory.empty() || log_path.empty()) {
        ScopedFd null(open("/dev/null", O_WRONLY | O_CLOEXEC));
        return null ? Result<ScopedFd>(std::move(null))
                    : host_error(Error::from_errno(errno, "open /dev/null"), "log");
    }
    TRY_HOST("log directory", make_directories(directory));
    const std::string whole = directory + "/" + log_path;
    ScopedFd at(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!at) {
        return log_error(directory, "open");
    }
    size_t begin = 0;
    for (size_t slash; (slash = log_path.find('/', begin)) != std::string::npos;
         begin = slash + 1) {
        const std::string part = log_path.substr(begin, slash - begin);
        if (part.empty()) {
            continue;
        }
        if (mkdirat(at.get(), part.c_str(), 0755) != 0 && errno != EEXIST) {
            return log_error(whole, "make the directory " + part + " of");
        }
        ScopedFd next(
            openat(at.get(), part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!next) {
            return log_error(whole, "open the directory " + part + " of");
        }
        at = std::move(next);
    }
    // NONBLOCK: nobody has to read a FIFO that was put there.
    ScopedFd fd(openat(at.get(), log_path.substr(begin).c_str(),
                       O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0640));
    if (!fd) {
        return log_error(whole, "open");
    }
    struct stat st {};
    if (fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) {
        return invalid_argument("config.log_path: " + whole + ": not a regular file");
    }
    fcntl(fd.get(), F_SETFL, O_APPEND);
    return fd;
}

}  // namespace

Result<ContainerRecord> ContainerManager::plan(const std::string& pod_id,
                                               const api::ContainerConfig& config) {
    const auto image = TRY(images_.find(config.image().image()));
    if (!image) {
        return not_found("image " + in_quotes(config.image().image()) + ": not on this node");
    }
    const ImageConfig image_config =
        TRY_HOST("image " + image->id, parse_image_config(image->config));
    ContainerRecord record;
    record.id = random_id();
    record.pod_id = pod_id;
    record.name = config.metadata().name();
    record.attempt = config.metadata().attempt();
    record.created_at_ns = now_ns();
    // Kubelet takes the latest of a pod's containers for the one that counts, also when the clock
    // was set back in between.
    for (const ContainerPtr& other : of_pod(pod_id)) {
        record.created_at_ns = std::max(record.created_at_ns, other->snapshot().created_at_ns + 1);
    }
    record.image_id = image->id;
    record.image_ref = image->reference();
    record.chain_id = image->chain_id;
    record.config = config.SerializeAsString();
    record.stop_signal = TRY(stop_signal(config, image_config));
    record.user =
        TRY(resolve_user(images_.root_path(image->chain_id), user_request(config, image_config)))
            .ids;
    return record;
}

Result<std::string> ContainerManager::create(const std::string& pod_id,
                                             const api::ContainerConfig& request) {
    api::ContainerConfig config = request;
    const PodPtr pod = TRY(pods_.find(pod_id));
    TRY(check_container_config(config, *pod->config, pod->handler.kernel));
    const std::shared_lock pod_operation(pod->operation);
    if (pod->snapshot().state != PodState::kReady) {
        return wrong_state("pod " + pod->id + ": create a container: the pod is not ready");
    }
    ContainerPtr container;
    {
        // From the look at the image to the row that refers to it nothing may be collected.
        const FileLock hold = TRY_HOST("image store", images_.hold());
        TRY(resolve_image_volumes(images_, config));
        ContainerRecord record = TRY(plan(pod->id, config));
        // As containerd: a pod without a log directory keeps no logs.
        if (!config.log_path().empty() && !pod->config->log_directory().empty()) {
            record.log_path = pod->config->log_directory() + "/" + config.log_path();
        }
        if (const Status inserted = store_.insert(record); !inserted.ok()) {
            return inserted.error().code() == EEXIST
                       ? already_exists("pod " + pod->id + ": container " + record.name +
                                        ", attempt " + std::to_string(record.attempt) +
                                        ": is there already")
                       : inserted.error();
        }
        container = std::make_shared<Container>(
            std::move(record), std::make_shared<api::ContainerConfig>(config), pod->runtime());
    }
    const std::lock_guard operation(container->operation);
    const std::string step = "container " + config.metadata().name() + " of pod " + pod->id;
    const LogScope pod_scope("pod", pod->id);
    const LogScope scope("container", container->id);
    fault_point("container.before it is made");
    const Status made = prepare(*container);
    fault_point("container.made");
    Status recorded = made;
    if (made.ok()) {
        const std::lock_guard lock(container->mu);
        ContainerRecord changed = container->record;
        changed.phase = ContainerPhase::kCreated;
        recorded = change(*container, changed);
    }
    if (!recorded.ok()) {
        spdlog::warn("container not created: {}", recorded.error().message());
        if (const Status erased = erase(*container); !erased.ok()) {
            spdlog::error("undo of the container's creation: {}", erased.error().message());
            // Kept in sight, so that it can be removed.
            const std::lock_guard lock(mu_);
            containers_[container->id] = container;
        }
        return recorded.error().within(step);
    }
    {
        const std::lock_guard lock(mu_);
        containers_[container->id] = container;
    }
    events_.publish(pod->id, container->id, ContainerEvent::kCreated);
    log_event(spdlog::level::info, "container created", {{"name", config.metadata().name()}});
    return container->id;
}

Result<std::string> ContainerManager::running_target(const std::string& pod_id,
                                                     const std::string& target_id) {
    const std::string field = "linux.security_context.namespace_options.target_id";
    const ContainerPtr target = TRY(find(target_id));
    if (target->pod_id != pod_id) {
        return invalid_argument(field + ": container " + target->id + " is one of another pod");
    }
    if (target->snapshot().phase != ContainerPhase::kRunning) {
        return wrong_state(field + ": container " + target->id + " does not run");
    }
    return target->id;
}

Status ContainerManager::prepare(Container& container) {
    const ContainerRecord record = container.snapshot();
    api::ContainerConfig config = *container.config;
    if (!record.resources.empty()) {
        *config.mutable_linux()->mutable_resources() = resources_of(record, config);
    }
    const PodPtr pod = TRY(pods_.find(container.pod_id));
    const auto image = TRY(images_.find(record.image_id));
    if (!image) {
        return not_found("image " + record.image_id + ": removed meanwhile");
    }
    const ImageConfig image_config =
        TRY_HOST("image " + image->id, parse_image_config(image->config));
    const auto sandbox = pod->runtime().state(pod->id);
    const api::ContainerConfig placed = TRY(place_image_volumes(images_, config));
    SpecInput input{.config = placed, .pod = *pod->config, .image = image_config};
    input.rootfs = images_.root_path(record.chain_id);
    input.user = TRY(resolve_user(input.rootfs, user_request(config, image_config)));
    input.kernel = pod->handler.kernel;
    input.cdi_directories = settings_.cdi_spec_dirs;
    input.container_id = container.id;
    input.pod_id = pod->id;
    input.hostname = pod_hostname(*pod->config, pod->id);
    input.network_namespace = pods_.network_namespace(pod->snapshot());
    input.pod_directory = settings_.pod_directory(pod->id);
    input.sandbox_pid = sandbox.ok() ? sandbox->sentry_pid : 0;
    const auto& options = config.linux().security_context().namespace_options();
    if (options.pid() == api::TARGET) {
        input.pid_target = TRY(running_target(pod->id, options.target_id()));
    }
    const std::string spec = TRY(build_spec(input));

    const std::string directory = settings_.container_directory(container.id);
    TRY_HOST("bundle", make_directories(directory, 0711));
    TRY_HOST("bundle", write_file(directory + "/config.json", spec, 0600));

    fault_point("container.bundle written");
    runtime::CreateConfig create;
    create.id = container.id;
    create.bundle = directory;
    TRY_HOST("runtime", container.runtime.check(create));
    // Its reader may look for it from now on.
    (void)TRY(open_log(pod->config->log_directory(), config.log_path()));
    return {};
}

Status ContainerManager::launch(Container& container) {
    const api::ContainerConfig& config = *container.config;
    const PodPtr pod = TRY(pods_.find(container.pod_id));
    const ScopedFd log = TRY(open_log(pod->config->log_directory(), config.log_path()));
    runtime::CreateConfig create;
    create.id = container.id;
    create.bundle = settings_.container_directory(container.id);
    create.stdio.cri_log_fd = log.get();
    create.stdio.attach_stdin = config.stdin() && !config.tty();
    create.stdio.attach_stdin_once = create.stdio.attach_stdin && config.stdin_once();
    Status created = container.runtime.create(create);
    if (!created.ok() && created.error().code() == EEXIST) {
        // What a start that did not get further has left.
        TRY(container.runtime.remove(container.id, true));
        created = container.runtime.create(create);
    }
    TRY(created);
    fault_point("container.created in its sandbox");
    if (const Status started = container.runtime.start(container.id); !started.ok()) {
        if (const Status undone = container.runtime.remove(container.id, true);
            !undone.ok() && undone.error().code() != ENOENT) {
            spdlog::error("undo of the container's start: {}", undone.error().message());
        }
        return started.error();
    }
    return {};
}

Status ContainerManager::reopen_log(const std::string& id) {
    const ContainerPtr container = TRY(find(id));
    const ContainerRecord record = container->snapshot();
    if (record.phase != ContainerPhase::kRunning) {
        return wrong_state("container " + container->id + ": reopen its log: it is not running");
    }
    if (record.log_path.empty()) {
        return {};
    }
    const PodPtr pod = TRY(pods_.find(container->pod_id));
    const ScopedFd log = TRY(open_log(pod->config->log_directory(), container->config->log_path()));
    TRY_HOST("container " + container->id + ": reopen its log",
             container->runtime.reopen_log(container->id, log.get()));
    return {};
}

}  // namespace moat::cri
