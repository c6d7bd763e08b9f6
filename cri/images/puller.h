#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cri/images/image_store.h"
#include "cri/images/registry.h"

namespace moat::cri {

/// Pulls images into a store. Pulls of the same layer at the same time share one download.
class ImagePuller {
  public:
    ImagePuller(ImageStore& store, RegistryHosts hosts) : store_(store), hosts_(std::move(hosts)) {}
    /// Pulls that begin from here on ask these.
    void set_hosts(RegistryHosts hosts) {
        const std::lock_guard lock(mu_);
        hosts_ = std::move(hosts);
    }

    /// Returns the image's id. `cancelled` is asked now and then.
    Result<std::string> pull(const std::string& reference, const RegistryAuth& auth,
                             const std::function<bool()>& cancelled);

  private:
    struct InFlight {
        bool done = false;
        Status status;
    };
    RegistryHosts hosts() {
        const std::lock_guard lock(mu_);
        return hosts_;
    }
    Result<std::string> pull_from(RegistryClient& client, const Reference& reference);
    Status ensure_layer(RegistryClient& client, const Descriptor& blob, const std::string& diff_id);
    Status fetch_layer(RegistryClient& client, const Descriptor& blob, const std::string& diff_id);
    Status ensure_layers(RegistryClient& client, const std::vector<Descriptor>& blobs,
                         const std::vector<std::string>& diff_ids);

    ImageStore& store_;
    std::mutex mu_;
    RegistryHosts hosts_;  ///< guarded by mu_
    std::condition_variable settled_;
    std::map<std::string, std::shared_ptr<InFlight>> in_flight_;  ///< by diff id; guarded by mu_
};

}  // namespace moat::cri
