#include "cri/events/container_events.h"

#include <spdlog/spdlog.h>

#include "api.pb.h"
#include "cri/base/files.h"

namespace moat::cri {

Result<ContainerEvents::Message> ContainerEvents::Subscription::next(
    std::chrono::milliseconds patience) {
    std::unique_lock lock(mu_);
    changed_.wait_for(lock, patience, [&] { return closed_ || overrun_ || !queue_.empty(); });
    if (overrun_) {
        return Error(ENOSPC, "events were lost: more than " + std::to_string(kQueued) +
                                 " were waiting for this client");
    }
    if (!queue_.empty()) {
        Message message = std::move(queue_.front());
        queue_.pop_front();
        return message;
    }
    if (closed_) {
        return Error(ECANCELED, "moatd ends");
    }
    return Message();
}

std::vector<std::shared_ptr<ContainerEvents::Subscription>> ContainerEvents::live_locked() {
    std::vector<std::shared_ptr<Subscription>> live;
    std::erase_if(subscriptions_, [&](const std::weak_ptr<Subscription>& weak) {
        auto subscription = weak.lock();
        if (subscription == nullptr) {
            return true;
        }
        live.push_back(std::move(subscription));
        return false;
    });
    return live;
}

void ContainerEvents::publish(const Order&, const std::string& pod_id, const std::string& id,
                              ContainerEvent event) {
    std::vector<std::shared_ptr<Subscription>> live;
    {
        const std::lock_guard lock(mu_);
        live = live_locked();
    }
    if (live.empty()) {
        return;
    }
    const auto message = std::make_shared<api::ContainerEventResponse>();
    message->set_container_id(id);
    message->set_container_event_type(static_cast<api::ContainerEventType>(event));
    message->set_created_at(told_now_ns());
    if (describe_) {
        describe_(pod_id, *message);
    }
    for (const auto& subscription : live) {
        const std::lock_guard lock(subscription->mu_);
        if (subscription->overrun_) {
            continue;
        }
        if (subscription->queue_.size() >= kQueued) {
            spdlog::warn("events: a subscriber is {} events behind and loses its stream", kQueued);
            subscription->overrun_ = true;
            subscription->queue_.clear();
        } else {
            subscription->queue_.push_back(message);
        }
        subscription->changed_.notify_all();
    }
}

Result<std::shared_ptr<ContainerEvents::Subscription>> ContainerEvents::subscribe() {
    const std::lock_guard lock(mu_);
    if (closed_) {
        return Error(ECANCELED, "moatd ends");
    }
    if (live_locked().size() >= kSubscribers) {
        return Error(
            ENOSPC, "there are " + std::to_string(kSubscribers) + " subscribers to events already");
    }
    auto subscription = std::make_shared<Subscription>();
    subscriptions_.push_back(subscription);
    return subscription;
}

void ContainerEvents::close() {
    const std::lock_guard lock(mu_);
    closed_ = true;
    for (const auto& subscription : live_locked()) {
        const std::lock_guard subscription_lock(subscription->mu_);
        subscription->closed_ = true;
        subscription->changed_.notify_all();
    }
}

}  // namespace moat::cri
