#include "cri/containers/container_manager.h"

#include <spdlog/spdlog.h>

#include "api.pb.h"
#include "cri/base/fault_point.h"
#include "cri/base/files.h"
#include "cri/base/log.h"
#include "cri/base/settings.h"
#include "cri/events/container_events.h"
#include "cri/images/image_store.h"
#include "cri/metrics/metrics.h"
#include "cri/pods/pod_manager.h"
#include "runtime/runtime.h"

namespace moat::cri {

namespace {

/// SIGKILL needs no guest's cooperation: what has not ended by then never will.
constexpr std::chrono::seconds kKillPatience{10};
/// The event says when a container has ended; a look at its state covers a stream that is just
/// being reopened.
constexpr std::chrono::milliseconds kAskAgain{1000};
/// For a container whose exit status nobody collected.
constexpr int32_t kExitUnknown = 255;

}  // namespace

ContainerManager::ContainerManager(const Settings& settings, Database& database, ImageStore& images,
                                   PodManager& pods, ContainerEvents& events)
    : settings_(settings), store_(database), images_(images), pods_(pods), events_(events) {}

Status ContainerManager::recover() {
    for (ContainerRecord& record : TRY(store_.all())) {
        auto config = std::make_shared<api::ContainerConfig>();
        if (!config->ParseFromString(record.config)) {
            return internal_error("container " + record.id +
                                  ": column config: not a ContainerConfig");
        }
        const PodPtr pod = TRY_STEP("container " + record.id, pods_.find(record.pod_id));
        const auto container =
            std::make_shared<Container>(std::move(record), std::move(config), pod->runtime());
        const ContainerPhase phase = container->snapshot().phase;
        if (phase == ContainerPhase::kCreating || phase == ContainerPhase::kRemoving) {
            spdlog::warn("container {}: half made or half removed by the last moatd: it goes",
                         container->id);
            metrics::recovered("container_undone");
            const Status erased = erase(*container);
            if (erased.ok()) {
                continue;
            }
            spdlog::error("container {}: left half-way by the last moatd and not cleaned up: {}",
                          container->id, erased.error().message());
        }
        const std::lock_guard lock(mu_);
        containers_[container->id] = container;
    }
    return {};
}

Result<ContainerPtr> ContainerManager::find(const std::string& id) {
    const std::lock_guard lock(mu_);
    if (auto container = find_by_prefix(containers_, id)) {
        return *container;
    }
    return not_found("container \"" + id + "\": no such container");
}

std::vector<ContainerPtr> ContainerManager::list() {
    const std::lock_guard lock(mu_);
    std::vector<ContainerPtr> containers;
    for (const auto& [id, container] : containers_) {
        containers.push_back(container);
    }
    return containers;
}

std::vector<ContainerPtr> ContainerManager::of_pod(const std::string& pod_id) {
    std::vector<ContainerPtr> containers = list();
    std::erase_if(containers,
                  [&](const ContainerPtr& container) { return container->pod_id != pod_id; });
    return containers;
}

/// The caller holds container.mu.
Status ContainerManager::change(Container& container, const ContainerRecord& changed) {
    TRY_HOST("database", store_.update(changed));
    container.set_record(changed);
    container.changed.notify_all();
    return {};
}

void ContainerManager::set_exited(Container& container, int32_t exit_code, int64_t finished_at_ns,
                                  const std::string& reason, const std::string& message) {
    const ContainerEvents::Order order = events_.order();
    std::unique_lock lock(container.mu);
    if (container.record.phase != ContainerPhase::kCreated &&
        container.record.phase != ContainerPhase::kRunning) {
        return;
    }
    ContainerRecord changed = container.record;
    changed.phase = ContainerPhase::kExited;
    changed.exit_code = exit_code;
    changed.finished_at_ns = finished_at_ns != 0 ? finished_at_ns : now_ns();
    changed.reason = reason;
    changed.message = message;
    if (const Status status = change(container, changed); !status.ok()) {
        // The runtime keeps the status: the next reconcile tries again. Whoever waits must still
        // see it.
        spdlog::error("container {}: exit not recorded: {}", container.id,
                      status.error().message());
        container.set_record(changed);
        container.changed.notify_all();
    }
    const bool tell = !container.starting;
    container.end_untold = container.starting;
    lock.unlock();
    if (tell) {
        events_.publish(order, container.pod_id, container.id, ContainerEvent::kStopped);
    }
    log_event(spdlog::level::info, "container exited",
              {{"pod", container.pod_id},
               {"container", container.id},
               {"code", std::to_string(exit_code)},
               {"reason", reason}});
}

void ContainerManager::release(Container& container) {
    const std::lock_guard lock(container.release_mu);
    if (container.released || container.in_use.use_count() > 1 ||
        container.snapshot().phase != ContainerPhase::kExited) {
        return;
    }
    const Status removed = container.runtime.remove(container.id, true);
    container.released = removed.ok() || removed.error().code() == ENOENT;
    if (!container.released) {
        spdlog::warn("container {}: pod {}: what it held is not released yet: {}", container.id,
                     container.pod_id, removed.error().message());
    }
}

void ContainerManager::exited(const std::string& id, const control::ExitStatus& status) {
    const auto container = find(id);
    if (!container.ok()) {
        return;
    }
    const int32_t code = status.shell_code();
    const char* reason = status.oom_killed ? "OOMKilled" : code == 0 ? "Completed" : "Error";
    set_exited(**container, code, status.finished_at_ns, reason, "");
}

void ContainerManager::reconcile(Container& container) {
    // One that is only created is a bundle and a row: the runtime hears of it when it starts.
    if (container.snapshot().phase != ContainerPhase::kRunning) {
        return;
    }
    const auto info = container.runtime.state(container.id);
    if (!info.ok() && info.error().code() != ENOENT) {
        spdlog::warn("container {}: state: {}", container.id, info.error().message());
        return;
    }
    if (info.ok() && info->state == control::ContainerState::kStopped) {
        if (info->exit) {
            exited(container.id, *info->exit);
        } else {
            set_exited(container, kExitUnknown, 0, "Unknown", "it ended and nobody saw how");
        }
        return;
    }
    if (info.ok() && info->state != control::ContainerState::kCreated) {
        return;
    }
    // A start in progress has written "running" and the runtime does not say so yet; it holds
    // `operation`, and only a start that died with the last moatd does not.
    if (!container.operation.try_lock()) {
        return;
    }
    const std::lock_guard operation(container.operation, std::adopt_lock);
    if (info.ok()) {
        const Status removed = container.runtime.remove(container.id, true);
        if (!removed.ok() && removed.error().code() != ENOENT) {
            spdlog::error("container {}: undo of a start that the last moatd did not get to: {}",
                          container.id, removed.error().message());
            return;
        }
    }
    const std::lock_guard lock(container.mu);
    if (container.record.phase != ContainerPhase::kRunning) {
        return;
    }
    ContainerRecord changed = container.record;
    changed.phase = ContainerPhase::kCreated;
    changed.started_at_ns = 0;
    (void)change(container, changed);
}

void ContainerManager::reconcile(const std::string& pod_id) {
    for (const ContainerPtr& container : of_pod(pod_id)) {
        reconcile(*container);
    }
}

void ContainerManager::sandbox_gone(const std::string& pod_id) {
    for (const ContainerPtr& container : of_pod(pod_id)) {
        // The runtime may have kept an exit status that we have not seen.
        const auto info = container->runtime.state(container->id);
        if (info.ok() && info->exit) {
            exited(container->id, *info->exit);
        }
        set_exited(*container, 128 + 9, 0, "Error", "the pod's sandbox ended");
    }
}

/// Whether the container has ended within `timeout`.
bool ContainerManager::wait_for_end(Container& container, std::chrono::milliseconds timeout) {
    std::unique_lock lock(container.mu);
    return container.changed.wait_for(lock, timeout, [&] {
        return container.record.phase != ContainerPhase::kRunning &&
               container.record.phase != ContainerPhase::kCreated;
    });
}

Status ContainerManager::start(const std::string& id) {
    const ContainerPtr container = TRY(find(id));
    const auto pod = TRY(pods_.find(container->pod_id));
    const LogScope pod_scope("pod", pod->id);
    const LogScope scope("container", container->id);
    const std::shared_lock pod_operation(pod->operation);
    const std::lock_guard operation(container->operation);
    {
        const std::lock_guard lock(container->mu);
        if (container->record.phase != ContainerPhase::kCreated) {
            return wrong_state("container " + container->id +
                               ": start: it is not in the state created");
        }
        ContainerRecord changed = container->record;
        changed.phase = ContainerPhase::kRunning;
        changed.started_at_ns = now_ns();
        TRY(change(*container, changed));
        container->starting = true;
    }
    const bool first_of_its_pod = of_pod(container->pod_id).size() == 1;
    fault_point("container.before its start");
    const auto start_time = std::chrono::steady_clock::now();
    const Status started = launch(*container);
    fault_point("container.started");
    if (!started.ok()) {
        set_not_started(*container, started.error().message());
        finish_start(*container, false);
        return host_error(started.error(), "container " + container->id + ": start");
    }
    finish_start(*container, true);
    if (first_of_its_pod) {
        metrics::sandbox_phase(
            "first_container",
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start_time).count());
    }
    spdlog::info("container started");
    return {};
}

void ContainerManager::set_not_started(Container& container, const std::string& message) {
    // 128 and this reason are what kubelet's users know of other runtimes.
    set_exited(container, 128, 0, "StartError", message);
    const std::lock_guard lock(container.mu);
    if (container.record.phase == ContainerPhase::kExited &&
        container.record.reason != "StartError") {
        // Its end was heard of before we heard why.
        ContainerRecord changed = container.record;
        changed.exit_code = 128;
        changed.reason = "StartError";
        changed.message = message;
        (void)change(container, changed);
    }
}

void ContainerManager::finish_start(Container& container, bool started) {
    const ContainerEvents::Order order = events_.order();
    if (started) {
        events_.publish(order, container.pod_id, container.id, ContainerEvent::kStarted);
    }
    bool ended = false;
    {
        const std::lock_guard lock(container.mu);
        container.starting = false;
        ended = std::exchange(container.end_untold, false);
        container.changed.notify_all();
    }
    if (ended) {
        events_.publish(order, container.pod_id, container.id, ContainerEvent::kStopped);
    }
}

Status ContainerManager::stop(const std::string& id, std::chrono::seconds grace) {
    const auto found = find(id);
    if (!found.ok()) {
        return {};
    }
    TRY(end(**found, grace));
    release(**found);
    return {};
}

Status ContainerManager::end(Container& container, std::chrono::seconds grace) {
    const ContainerRecord record = container.snapshot();
    if (record.phase != ContainerPhase::kRunning) {
        return {};
    }
    {
        // The runtime does not know one that is being started, and a signal would be lost on it.
        std::unique_lock lock(container.mu);
        container.changed.wait_for(lock, kKillPatience, [&] { return !container.starting; });
    }
    if (grace.count() > 0) {
        const Status sent = container.runtime.kill(container.id, record.stop_signal);
        if (!sent.ok() && sent.error().code() != ESRCH) {
            spdlog::warn("container {}: signal {}: {}", container.id, record.stop_signal,
                         sent.error().message());
        }
        // Kubelet's "no limit" is a very long time; a condition variable cannot add that to its
        // clock.
        if (wait_for_end(container,
                         std::min<std::chrono::seconds>(grace, std::chrono::hours(24 * 365)))) {
            return {};
        }
        reconcile(container);
        if (wait_for_end(container, std::chrono::seconds(0))) {
            return {};
        }
        spdlog::info("container {}: did not end in {} s, killing it", container.id, grace.count());
    }
    const Status killed = container.runtime.kill(container.id, 9, true);
    if (!killed.ok() && killed.error().code() != ESRCH && killed.error().code() != ENOENT) {
        return host_error(killed.error(), "container " + container.id + ": kill");
    }
    for (auto waited = kAskAgain * 0; waited < kKillPatience; waited += kAskAgain) {
        if (wait_for_end(container, kAskAgain)) {
            return {};
        }
        reconcile(container);
    }
    if (wait_for_end(container, std::chrono::seconds(0))) {
        return {};
    }
    return timed_out("container " + container.id + ": stop: still there after SIGKILL");
}

void ContainerManager::kill_all(const std::string& pod_id) {
    const auto containers = of_pod(pod_id);
    for (const ContainerPtr& container : containers) {
        if (container->snapshot().phase == ContainerPhase::kRunning) {
            (void)container->runtime.kill(container->id, 9, true);
        }
    }
    const auto deadline = std::chrono::steady_clock::now() + kKillPatience;
    for (const ContainerPtr& container : containers) {
        if (container->snapshot().phase == ContainerPhase::kRunning) {
            const auto rest = std::chrono::duration_cast<std::chrono::milliseconds>(
                deadline - std::chrono::steady_clock::now());
            if (!wait_for_end(*container,
                              std::clamp(rest, std::chrono::milliseconds(0), kAskAgain))) {
                reconcile(*container);
                (void)wait_for_end(*container,
                                   std::max(rest - kAskAgain, std::chrono::milliseconds(0)));
            }
        }
    }
}

Status ContainerManager::erase(Container& container) {
    {
        const std::lock_guard lock(container.release_mu);
        if (!container.released) {
            const Status removed = container.runtime.remove(container.id, true);
            if (!removed.ok() && removed.error().code() != ENOENT) {
                return host_error(removed.error(), "container " + container.id + ": remove");
            }
            container.released = true;
        }
    }
    fault_point("container.removed from its sandbox");
    TRY_HOST("container " + container.id,
             images_.discard(settings_.container_directory(container.id)));
    fault_point("container.before its row goes");
    TRY_HOST("database", store_.erase(container.id));
    return {};
}

Status ContainerManager::remove_container(const ContainerPtr& container) {
    const LogScope pod_scope("pod", container->pod_id);
    const LogScope scope("container", container->id);
    TRY(stop(container->id, std::chrono::seconds(0)));
    const std::lock_guard operation(container->operation);
    {
        const std::lock_guard lock(container->mu);
        ContainerRecord changed = container->record;
        changed.phase = ContainerPhase::kRemoving;
        TRY(change(*container, changed));
    }
    TRY(erase(*container));
    {
        const std::lock_guard lock(mu_);
        containers_.erase(container->id);
    }
    events_.publish(container->pod_id, container->id, ContainerEvent::kDeleted);
    spdlog::info("container removed");
    return {};
}

Status ContainerManager::remove(const std::string& id) {
    const auto container = find(id);
    return container.ok() ? remove_container(*container) : Status();
}

Status ContainerManager::remove_all(const std::string& pod_id) {
    for (const ContainerPtr& container : of_pod(pod_id)) {
        TRY(remove_container(container));
    }
    return {};
}

}  // namespace moat::cri
