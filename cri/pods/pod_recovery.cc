// What PodManager does with pods it did not just make: after a restart of moatd, and when a sentry
// reports or dies.

#include <spdlog/spdlog.h>

#include <chrono>
#include <condition_variable>

#include "api.pb.h"
#include "cri/base/log.h"
#include "cri/containers/container_manager.h"
#include "cri/events/container_events.h"
#include "cri/metrics/metrics.h"
#include "cri/pods/pod_manager.h"
#include "runtime/runtime.h"

namespace moat::cri {

Status PodManager::load() {
    for (PodRecord& record : TRY(store_.all())) {
        auto config = std::make_shared<api::PodSandboxConfig>();
        if (!config->ParseFromString(record.config)) {
            return internal_error("pod " + record.id + ": column config: not a PodSandboxConfig");
        }
        Handler& handler = *TRY_STEP("pod " + record.id, handlers_.find(record.runtime));
        const auto pod = std::make_shared<Pod>(std::move(record), std::move(config), handler);
        const std::lock_guard lock(mu_);
        pods_[pod->id] = pod;
    }
    return {};
}

Status PodManager::recover() {
    for (const PodPtr& pod : list()) {
        recover_pod(pod);
    }
    return {};
}

void PodManager::recover_pod(const PodPtr& pod) {
    const LogScope scope("pod", pod->id);
    const std::unique_lock operation(pod->operation);
    const PodState state = pod->snapshot().state;
    Status settled;
    switch (state) {
        case PodState::kReady:
            if (pod->runtime().sandbox_alive(pod->id)) {
                containers_->reconcile(pod->id);
                start_watching(pod);
                spdlog::info("pod found again");
                metrics::recovered("pod_found_again");
            } else {
                sandbox_died(*pod);
                metrics::recovered("pod_died");
            }
            break;
        case PodState::kCreating:
        case PodState::kRemoving:
            spdlog::warn("pod half made or half removed by the last moatd: it goes");
            metrics::recovered("pod_undone");
            settled = remove_locked(pod);
            break;
        case PodState::kStopping:
            spdlog::warn("pod half stopped by the last moatd: it is stopped");
            metrics::recovered("pod_stopped");
            settled = stop_locked(*pod);
            break;
        case PodState::kStopped:
        case PodState::kDied:
            containers_->sandbox_gone(pod->id);
            break;
    }
    if (!settled.ok()) {
        spdlog::error("pod left half-way by the last moatd and not cleaned up: {}",
                      settled.error().message());
        (void)set_state(*pod, PodState::kDied);
    }
}

void PodManager::sandbox_died(Pod& pod) {
    const LogScope scope("pod", pod.id);
    {
        const std::lock_guard lock(pod.mu);
        if (pod.record.state != PodState::kReady) {
            return;  // it is being stopped: that is why it died
        }
    }
    spdlog::error("the pod's sentry is gone");
    if (const Status status = set_state(pod, PodState::kDied); !status.ok()) {
        spdlog::error("{}", status.error().message());
    }
    containers_->sandbox_gone(pod.id);
    events_.publish(pod.id, pod.id, ContainerEvent::kStopped);
}

void PodManager::start_watching(const PodPtr& pod) {
    const std::lock_guard lock(pod->watch_mu);
    pod->watch_stopped = false;
    // The thread holds the pod; stop_watching() joins it before the pod is forgotten.
    pod->watcher = std::thread([this, pod] { watch(pod); });
}

void PodManager::stop_watching(Pod& pod) {
    std::thread watcher;
    {
        const std::lock_guard lock(pod.watch_mu);
        pod.watch_stopped = true;
        if (pod.events != nullptr) {
            pod.events->cancel();
        }
        watcher = std::move(pod.watcher);
    }
    pod.watch_changed.notify_all();
    if (watcher.joinable()) {
        watcher.join();
    }
}

void PodManager::watch(const PodPtr& pod) {
    const LogScope scope("pod", pod->id);
    for (;;) {
        auto stream = pod->runtime().events(pod->id);
        if (!stream.ok()) {
            if (!pod->runtime().sandbox_alive(pod->id)) {
                return sandbox_died(*pod);
            }
            spdlog::warn("events: {}; trying again", stream.error().message());
            std::unique_lock lock(pod->watch_mu);
            if (pod->watch_changed.wait_for(lock, std::chrono::seconds(1),
                                            [&] { return pod->watch_stopped; })) {
                return;
            }
            continue;
        }
        std::shared_ptr<runtime::EventStream> events = std::move(*stream);
        {
            const std::lock_guard lock(pod->watch_mu);
            if (pod->watch_stopped) {
                return;
            }
            pod->events = events;
        }
        // What happened before we listened is told by the states; what happens from now on, by
        // events.
        containers_->reconcile(pod->id);
        for (;;) {
            const auto event = events->next();
            if (!event.ok()) {
                const bool cancelled = event.error().code() == ECANCELED;
                {
                    const std::lock_guard lock(pod->watch_mu);
                    pod->events.reset();
                    if (pod->watch_stopped) {
                        return;
                    }
                }
                if (!cancelled && !pod->runtime().sandbox_alive(pod->id)) {
                    return sandbox_died(*pod);
                }
                spdlog::warn("event stream: {}; opening it again", event.error().message());
                break;
            }
            if (event->kind == "exited" && event->exec_id.empty() && event->exit) {
                containers_->exited(event->container_id, *event->exit);
            }
        }
    }
}

}  // namespace moat::cri
