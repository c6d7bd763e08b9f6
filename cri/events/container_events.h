#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cri/base/error.h"

namespace runtime::v1 {
class ContainerEventResponse;
}

namespace moat::cri {

namespace api = ::runtime::v1;

/// Values are the CRI's.
enum class ContainerEvent { kCreated = 0, kStarted = 1, kStopped = 2, kDeleted = 3 };

/// What happens to pods and containers, for whoever listens (evented PLEG). A pod's own events bear
/// its id as that of a container, as containerd has them.
///
/// Events of one container arrive in the order in which they happened. A subscriber that does not
/// keep up loses its subscription, not single events: it then knows that it must list everything.
class ContainerEvents {
  public:
    using Message = std::shared_ptr<const api::ContainerEventResponse>;
    /// Adds to an event what the pod and its containers look like at that moment.
    using Describe =
        std::function<void(const std::string& pod_id, api::ContainerEventResponse& event)>;

    static constexpr size_t kQueued = 1000;
    static constexpr size_t kSubscribers = 64;

    class Subscription {
      public:
        /// The next event; null after `patience` without one. ENOSPC: too slow, events were lost;
        /// ECANCELED: moatd ends.
        Result<Message> next(std::chrono::milliseconds patience);

      private:
        friend class ContainerEvents;
        std::mutex mu_;
        std::condition_variable changed_;
        std::deque<Message> queue_;  ///< guarded by mu_, like the rest
        bool overrun_ = false;
        bool closed_ = false;
    };

    /// Before the first event.
    void set_describe(Describe describe) { describe_ = std::move(describe); }

    /// Held from before a change that others may act upon until its event is out: what they cause
    /// is told later. Taken before Pod::mu and Container::mu.
    using Order = std::unique_lock<std::mutex>;
    Order order() { return Order(order_mu_); }
    void publish(const Order& order, const std::string& pod_id, const std::string& id,
                 ContainerEvent event);
    void publish(const std::string& pod_id, const std::string& id, ContainerEvent event) {
        publish(order(), pod_id, id, event);
    }

    /// Ends when the last reference is gone. ENOSPC: too many; ECANCELED: moatd ends.
    Result<std::shared_ptr<Subscription>> subscribe();
    /// Ends all subscriptions, and refuses new ones.
    void close();

  private:
    std::vector<std::shared_ptr<Subscription>> live_locked();

    Describe describe_;  ///< immutable once events are published
    std::mutex order_mu_;
    std::mutex mu_;                                           ///< leaf, but for Subscription::mu_
    std::vector<std::weak_ptr<Subscription>> subscriptions_;  ///< guarded by mu_
    bool closed_ = false;                                     ///< guarded by mu_
};

}  // namespace moat::cri
