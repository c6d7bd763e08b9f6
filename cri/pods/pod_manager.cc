#include "cri/pods/pod_manager.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>

#include "api.pb.h"
#include "cri/base/fault_point.h"
#include "cri/base/files.h"
#include "cri/base/log.h"
#include "cri/base/settings.h"
#include "cri/containers/config_check.h"
#include "cri/containers/container_manager.h"
#include "cri/containers/resources.h"
#include "cri/containers/spec.h"
#include "cri/containers/user_namespace.h"
#include "cri/events/container_events.h"
#include "cri/metrics/metrics.h"
#include "cri/pods/pod_files.h"
#include "cri/pods/sysctls.h"
#include "kernel/base/cleanup.h"
#include "runtime/runtime.h"

namespace moat::cri {

PodManager::PodManager(const Settings& settings, Database& database, const Handlers& handlers,
                       PodNetworks& networks, ContainerEvents& events)
    : settings_(settings),
      store_(database),
      handlers_(handlers),
      networks_(networks),
      events_(events),
      network_checks_([this](const std::string& id) -> std::optional<Status> {
          const auto pod = find(id);
          if (!pod.ok() || (*pod)->snapshot().state != PodState::kReady) {
              return std::nullopt;
          }
          return networks_.check((*pod)->snapshot(), *(*pod)->config);
      }) {}

PodManager::~PodManager() {
    for (const PodPtr& pod : list()) {
        stop_watching(*pod);
    }
}

Result<PodPtr> PodManager::find(const std::string& id) {
    const std::lock_guard lock(mu_);
    if (auto pod = find_by_prefix(pods_, id)) {
        return *pod;
    }
    return not_found("pod \"" + id + "\": no such pod");
}

std::vector<PodPtr> PodManager::list() {
    const std::lock_guard lock(mu_);
    std::vector<PodPtr> pods;
    for (const auto& [id, pod] : pods_) {
        pods.push_back(pod);
    }
    return pods;
}

std::string PodManager::network_namespace(const PodRecord& pod) const {
    // The node's is that of moatd itself: its number stays right for the runtime's children too.
    return pod.network.kind == PodNetwork::Kind::kNode
               ? "/proc/" + std::to_string(getpid()) + "/ns/net"
               : pod.network.namespace_path;
}

Status PodManager::set_state(Pod& pod, PodState state) {
    const std::lock_guard lock(pod.mu);
    PodRecord changed = pod.record;
    changed.state = state;
    TRY(store_.update(changed));
    pod.set_record(std::move(changed));
    return {};
}

void PodManager::forget(const std::string& id) {
    network_checks_.forget(id);
    const std::lock_guard lock(mu_);
    pods_.erase(id);
}

Result<std::string> PodManager::run(const api::PodSandboxConfig& config,
                                    const std::string& handler) {
    Handler& runs = *TRY(handlers_.choose(handler));
    TRY(check_pod_config(config, runs.kernel));
    if (has_user_namespace(config) && !runs.features.user_namespaces) {
        return not_supported(
            "config.linux.security_context.namespace_options.userns_options: handler \"" +
            runs.name + "\" has no id-mapped mounts (runc from 1.2 on has)");
    }
    const Sysctls sysctls(config.linux().sysctls().begin(), config.linux().sysctls().end());
    const bool own = config.linux().security_context().namespace_options().network() != api::NODE;
    TRY(check_sysctls(sysctls, own ? OwnNetwork::kYes : OwnNetwork::kNo));
    PodRecord record;
    record.id = random_id();
    record.name = config.metadata().name();
    record.name_space = config.metadata().namespace_();
    record.uid = config.metadata().uid();
    record.attempt = config.metadata().attempt();
    record.handler = handler;
    record.runtime = runs.name;
    record.created_at_ns = now_ns();
    for (const PodPtr& other : list()) {
        // As with containers: of one pod's sandboxes the latest counts.
        const PodRecord before = other->snapshot();
        if (before.uid == record.uid && before.name_space == record.name_space &&
            before.name == record.name) {
            record.created_at_ns = std::max(record.created_at_ns, before.created_at_ns + 1);
        }
    }
    record.config = config.SerializeAsString();
    record.network = TRY(networks_.choose(record.id, config));
    if (const Status inserted = store_.insert(record); !inserted.ok()) {
        return inserted.error().code() == EEXIST
                   ? already_exists("pod " + record.name_space + "/" + record.name + ", uid " +
                                    record.uid + ", attempt " + std::to_string(record.attempt) +
                                    ": is there already")
                   : inserted.error();
    }
    const auto pod =
        std::make_shared<Pod>(record, std::make_shared<api::PodSandboxConfig>(config), runs);
    const LogScope scope("pod", pod->id);
    const std::unique_lock operation(pod->operation);
    {
        const std::lock_guard lock(mu_);
        pods_[pod->id] = pod;
    }
    if (const Status created = create(*pod); !created.ok()) {
        spdlog::warn("pod not created: {}", created.error().message());
        Status undone = tear_down(*pod);
        if (undone.ok()) {
            undone = store_.erase(pod->id);
        }
        if (undone.ok()) {
            forget(pod->id);
        } else {
            // The row keeps what could not be undone in sight; a stop or the next start tries
            // again.
            spdlog::error("undo of the pod's creation: {}", undone.error().message());
            (void)set_state(*pod, PodState::kDied);
        }
        return created.error().within("pod " + record.name_space + "/" + record.name);
    }
    start_watching(pod);
    events_.publish(pod->id, pod->id, ContainerEvent::kCreated);
    events_.publish(pod->id, pod->id, ContainerEvent::kStarted);
    const PodRecord made = pod->snapshot();
    log_event(spdlog::level::info, "pod ready",
              {{"namespace", made.name_space},
               {"name", made.name},
               {"handler", made.runtime},
               {"address", made.network.ips.empty() ? "of the node" : made.network.ips.front()}});
    return pod->id;
}

Status PodManager::update(const std::string& id, const api::LinuxContainerResources& resources,
                          const api::LinuxContainerResources& overhead) {
    TRY_STEP("resources", check_resources(resources));
    TRY_STEP("overhead", check_resources(overhead));
    const PodPtr pod = TRY(find(id));
    const std::string step = "pod " + pod->id + ": update its resources";
    const std::shared_lock operation(pod->operation);
    if (pod->snapshot().state != PodState::kReady) {
        return wrong_state(step + ": the pod is not ready");
    }
    const Status updated =
        pod->runtime().update(pod->id, to_resources(with_overhead(resources, overhead)));
    if (!updated.ok()) {
        return updated.error().code() == EINVAL || updated.error().code() == EBUSY
                   ? updated.error().within(step)
                   : host_error(updated.error(), step);
    }
    spdlog::info("pod {}: resources updated", pod->id);
    return {};
}

Status PodManager::create(Pod& pod) {
    PodRecord record = pod.snapshot();
    const api::PodSandboxConfig& config = *pod.config;
    const auto start = std::chrono::steady_clock::now();
    fault_point("pod.before its network");
    // A sandboxed pod's user namespace is its own kernel's affair.
    const auto ids = pod.handler.kernel == Kernel::kNode ? node_ids(config) : std::nullopt;
    TRY(networks_.set_up(record, config, record.network, ids));
    metrics::sandbox_phase(
        "network", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    fault_point("pod.network made");
    TRY_HOST("database", store_.update(record));
    {
        const std::lock_guard lock(pod.mu);
        pod.set_record(record);
    }
    const std::string hostname = pod_hostname(config, pod.id);
    TRY(write_pod_files(settings_.pod_directory(pod.id), config, hostname, record.network.ips,
                        record.network.kind == PodNetwork::Kind::kNode,
                        PodNetworks::dns(record.network)));
    if (ids) {
        TRY(give_pod_files(settings_.pod_directory(pod.id), ids->uids.host, ids->gids.host));
    }
    if (!config.log_directory().empty()) {
        TRY_HOST("config.log_directory", make_directories(config.log_directory(), 0755));
    }
    fault_point("pod.files written");
    runtime::SandboxConfig sandbox;
    sandbox.id = pod.id;
    sandbox.hostname = hostname;
    sandbox.network_namespace = network_namespace(record);
    const auto& namespaces = config.linux().security_context().namespace_options();
    sandbox.host_network = record.network.kind == PodNetwork::Kind::kNode;
    sandbox.host_ipc = namespaces.ipc() == api::NODE;
    if (ids) {
        sandbox.mapped_root = runtime::MappedRoot{ids->uids.host, ids->gids.host};
    }
    sandbox.shm_directory = settings_.pod_directory(pod.id) + "/shm";
    sandbox.cgroup_parent = config.linux().cgroup_parent();
    // linux.resources is the sum of those containers' limits that have one: a hint for who sizes a
    // machine, no limit of the pod. Kubelet sets that, if all have one, in the cgroup above.
    sandbox.sysctls = {config.linux().sysctls().begin(), config.linux().sysctls().end()};
    if (!sandbox.sysctls.empty() && !sandbox.network_namespace.empty()) {
        TRY(write_network_sysctls(sandbox.sysctls, sandbox.network_namespace));
    }
    sandbox.annotations["io.kubernetes.cri.container-type"] = "sandbox";
    sandbox.annotations["io.kubernetes.cri.sandbox-id"] = pod.id;
    sandbox.annotations["io.kubernetes.cri.sandbox-name"] = record.name;
    sandbox.annotations["io.kubernetes.cri.sandbox-namespace"] = record.name_space;
    sandbox.annotations["io.kubernetes.cri.sandbox-uid"] = record.uid;
    sandbox.annotations["io.kubernetes.cri.sandbox-log-directory"] = config.log_directory();
    TRY_HOST("sandbox", pod.runtime().create_sandbox(sandbox));
    fault_point("pod.sandbox made");
    return set_state(pod, PodState::kReady);
}

Status PodManager::tear_down(Pod& pod) {
    TRY_HOST("sandbox", pod.runtime().destroy_sandbox(pod.id));
    fault_point("pod.sandbox destroyed again");
    TRY(networks_.tear_down(pod.snapshot(), *pod.config));
    fault_point("pod.before its files go");
    TRY_HOST("files of the pod", remove_tree(settings_.pod_directory(pod.id)));
    return {};
}

Status PodManager::stop(const std::string& id) {
    auto pod = find(id);
    if (!pod.ok()) {
        return {};
    }
    const std::unique_lock operation((*pod)->operation);
    return stop_locked(**pod);
}

Status PodManager::stop_locked(Pod& pod) {
    const PodState state = pod.snapshot().state;
    if (state == PodState::kStopped || state == PodState::kRemoving) {
        return {};
    }
    TRY_HOST("database", set_state(pod, PodState::kStopping));
    const LogScope scope("pod", pod.id);
    containers_->kill_all(pod.id);
    fault_point("pod.containers killed");
    stop_watching(pod);
    // The files stay until the pod is removed: a container may still be asked about its mounts.
    // Beside the network's end: no container is left that could miss it, and the plugins take
    // longer than all the rest. Both may be repeated, whichever of them a kill or an error cuts
    // short.
    auto network = std::async(std::launch::async, [this, &pod] {
        const LogScope in_pod("pod", pod.id);
        return networks_.tear_down(pod.snapshot(), *pod.config);
    });
    const Status destroyed = pod.runtime().destroy_sandbox(pod.id);
    fault_point("pod.sandbox destroyed");
    const Status network_gone = network.get();
    fault_point("pod.network gone");
    TRY_HOST("stop pod " + pod.id + ": sandbox", destroyed);
    containers_->sandbox_gone(pod.id);
    TRY(network_gone);
    TRY_HOST("database", set_state(pod, PodState::kStopped));
    events_.publish(pod.id, pod.id, ContainerEvent::kStopped);
    spdlog::info("pod stopped");
    return {};
}

Status PodManager::remove(const std::string& id) {
    auto pod = find(id);
    if (!pod.ok()) {
        return {};
    }
    const std::unique_lock operation((*pod)->operation);
    return remove_locked(*pod);
}

Status PodManager::remove_locked(const PodPtr& pod) {
    const LogScope scope("pod", pod->id);
    TRY(stop_locked(*pod));
    const PodState before = pod->snapshot().state;
    TRY_HOST("database", set_state(*pod, PodState::kRemoving));
    TRY(containers_->remove_all(pod->id));
    fault_point("pod.containers removed");
    if (before == PodState::kStopped) {
        // Its sandbox and its network are gone; plugins need not be asked again.
        TRY_HOST("files of the pod", remove_tree(settings_.pod_directory(pod->id)));
    } else {
        TRY(tear_down(*pod));
    }
    fault_point("pod.before its row goes");
    TRY_HOST("database", store_.erase(pod->id));
    forget(pod->id);
    events_.publish(pod->id, pod->id, ContainerEvent::kDeleted);
    spdlog::info("pod removed");
    return {};
}

}  // namespace moat::cri
