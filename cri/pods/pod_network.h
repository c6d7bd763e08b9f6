#pragma once

#include <mutex>
#include <string>

#include "cri/base/settings.h"
#include "cri/cni/builtin_network.h"
#include "cri/cni/netns.h"
#include "cri/cni/plugin_network.h"
#include "cri/store/pod_store.h"

namespace runtime::v1 {
class PodSandboxConfig;
}

namespace moat::cri {

namespace api = ::runtime::v1;

/// Chooses and makes a pod's network: the node's own, CNI's, or the built-in one.
class PodNetworks {
  public:
    PodNetworks(const Settings& settings, Database& database)
        : settings_(settings),
          cni_(cni_of(settings)),
          builtin_(database, settings.root, settings.masquerade) {}
    /// From here on CNI configurations and plugins are looked for where these say.
    void configure(const Settings& settings) {
        const std::lock_guard lock(mu_);
        cni_ = cni_of(settings);
    }

    /// After the pods of the last moatd have been settled: what belongs to none of them is freed,
    /// in the built-in network and, by GC, in the plugins of the CNI configuration.
    Status recover(const std::vector<PodRecord>& pods);

    /// Which network a new pod will have. Nothing is made yet: the answer goes into the database
    /// first.
    Result<PodNetwork> choose(const std::string& pod_id, const api::PodSandboxConfig& config);
    /// Makes what was chosen and fills in addresses and results. After an error the caller runs
    /// tear_down(), which is able to remove half a network. With `ids` the network namespace
    /// belongs to a user namespace of the pod's own.
    Status set_up(const PodRecord& pod, const api::PodSandboxConfig& config, PodNetwork& network,
                  const std::optional<UserNamespaceIds>& ids);
    /// What the network says about name resolution, for a pod whose request says nothing.
    static CniDns dns(const PodNetwork& network);
    /// CHECK of the CNI specification; a success for the other kinds.
    Status check(const PodRecord& pod, const api::PodSandboxConfig& config);
    /// May be repeated, and after any prefix of set_up().
    Status tear_down(const PodRecord& pod, const api::PodSandboxConfig& config);
    /// Why a new pod would get no network; a success when it would.
    Status ready();
    BuiltinNetwork& builtin() { return builtin_; }

  private:
    struct Cni {
        std::string conf_dir;
        CniPlugins plugins;
    };
    static Cni cni_of(const Settings& settings) {
        return {settings.cni_conf_dir,
                {settings.cni_bin_dir, std::chrono::seconds(settings.cni_timeout_s)}};
    }
    Cni cni() {
        const std::lock_guard lock(mu_);
        return cni_;
    }
    Result<CniPod> cni_pod(const PodRecord& pod, const api::PodSandboxConfig& config);

    const Settings& settings_;
    std::mutex mu_;
    Cni cni_;  ///< guarded by mu_
    BuiltinNetwork builtin_;
};

}  // namespace moat::cri
