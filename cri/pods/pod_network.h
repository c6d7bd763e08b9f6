#pragma once

#include <mutex>
#include <string>

#include "cri/base/settings.h"
#include "cri/cni/builtin_network.h"
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
          directories_{settings.cni_conf_dir, settings.cni_bin_dir},
          builtin_(database) {}
    /// From here on CNI configurations and plugins are looked for there.
    void set_directories(const std::string& conf_dir, const std::string& bin_dir) {
        const std::lock_guard lock(mu_);
        directories_ = {conf_dir, bin_dir};
    }

    /// Which network a new pod will have. Nothing is made yet: the answer goes into the database
    /// first.
    Result<PodNetwork> choose(const std::string& pod_id, const api::PodSandboxConfig& config);
    /// Makes what was chosen and fills in addresses and results. After an error the caller runs
    /// tear_down(), which is able to remove half a network.
    Status set_up(const PodRecord& pod, const api::PodSandboxConfig& config, PodNetwork& network);
    /// CHECK of the CNI specification; a success for the other kinds.
    Status check(const PodRecord& pod, const api::PodSandboxConfig& config);
    /// May be repeated, and after any prefix of set_up().
    Status tear_down(const PodRecord& pod, const api::PodSandboxConfig& config);
    /// Why a new pod would get no network; a success when it would.
    Status ready();
    BuiltinNetwork& builtin() { return builtin_; }

  private:
    struct Directories {
        std::string conf;
        std::string bin;
    };
    Directories directories() {
        const std::lock_guard lock(mu_);
        return directories_;
    }

    const Settings& settings_;
    std::mutex mu_;
    Directories directories_;  ///< guarded by mu_
    BuiltinNetwork builtin_;
};

}  // namespace moat::cri
