#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cri/pods/network_checks.h"
#include "cri/pods/pod.h"
#include "cri/pods/pod_network.h"

namespace runtime::v1 {
class LinuxContainerResources;
}

namespace moat::cri {

class ContainerEvents;
class ContainerManager;
struct Settings;

/// All pods of the node.
///
/// Order of writes: the row says what is about to be done (creating, stopping, removing) before
/// anything outside the database changes, and what has been done afterwards. Each step can be
/// undone or repeated, so recover() finishes whatever a killed moatd left half-way.
class PodManager {
  public:
    PodManager(const Settings& settings, Database& database, const Handlers& handlers,
               PodNetworks& networks, ContainerEvents& events);
    ~PodManager();
    /// The two managers know each other; called once, before anything else.
    void set_containers(ContainerManager& containers) { containers_ = &containers; }

    /// Loads the pods, before ContainerManager::recover().
    Status load();
    /// Settles half-done work. Containers are loaded already. A pod whose clean-up fails is kept as
    /// dead, for the client to stop and remove.
    Status recover();

    /// RunPodSandbox. EEXIST: a pod of this name, namespace, uid and attempt is there.
    Result<std::string> run(const api::PodSandboxConfig& config, const std::string& handler);
    /// Kills what runs in it and releases its network. A pod that is not there is a success.
    Status stop(const std::string& id);
    /// Stops it if need be and forgets it and its containers. A pod that is not there is a success.
    Status remove(const std::string& id);
    /// UpdatePodSandboxResources: the limits of the pod as a whole, and what its guests are shown
    /// of them. They are the cgroup's and the sandbox's to keep, not the database's.
    Status update(const std::string& id, const api::LinuxContainerResources& resources,
                  const api::LinuxContainerResources& overhead);

    /// By id or by an unambiguous beginning of it, which crictl's users type. ENOENT.
    Result<PodPtr> find(const std::string& id);
    std::vector<PodPtr> list();
    /// Path of the network namespace that the pod's sockets live in.
    std::string network_namespace(const PodRecord& pod) const;
    /// What the last CHECK of the pod's network said; asks for another.
    NetworkChecks::Answer check_network(const std::string& id) { return network_checks_.ask(id); }

  private:
    Status set_state(Pod& pod, PodState state);
    Status create(Pod& pod);
    /// Takes down the sandbox and the network, in this order; may be repeated.
    Status tear_down(Pod& pod);
    Status stop_locked(Pod& pod);
    Status remove_locked(const PodPtr& pod);
    void forget(const std::string& id);
    void start_watching(const PodPtr& pod);
    void stop_watching(Pod& pod);
    void watch(const PodPtr& pod);
    void sandbox_died(Pod& pod);
    void recover_pod(const PodPtr& pod);

    const Settings& settings_;
    PodStore store_;
    const Handlers& handlers_;
    PodNetworks& networks_;
    ContainerEvents& events_;
    ContainerManager* containers_ = nullptr;

    std::mutex mu_;
    std::map<std::string, PodPtr> pods_;  ///< guarded by mu_
    NetworkChecks network_checks_;        ///< last: its thread looks pods up
};

/// The only key of `objects` that begins with `prefix`; nothing when there is none or more than
/// one.
template <typename Map>
std::optional<typename Map::mapped_type> find_by_prefix(const Map& objects,
                                                        const std::string& prefix) {
    auto it = objects.lower_bound(prefix);
    if (prefix.empty() || it == objects.end() || it->first.compare(0, prefix.size(), prefix) != 0) {
        return std::nullopt;
    }
    const auto next = std::next(it);
    if (it->first != prefix && next != objects.end() &&
        next->first.compare(0, prefix.size(), prefix) == 0) {
        return std::nullopt;
    }
    return it->second;
}

}  // namespace moat::cri
