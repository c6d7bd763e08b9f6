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

/// Pulls images into a store. Pulls of the same layer at the same time share one download; each
/// asks for the manifest itself, and so proves to the registry that it may have the image.
class ImagePuller {
  public:
    ImagePuller(ImageStore& store, RegistryHosts hosts, PullLimits limits = {});
    /// Pulls that begin from here on ask these.
    void set_hosts(RegistryHosts hosts) {
        const std::lock_guard lock(mu_);
        hosts_ = std::move(hosts);
    }

    /// Returns the image's id. `cancelled` is asked at least once a second. The error names the
    /// image, each server that was asked, the blob and the step.
    Result<std::string> pull(const std::string& reference, const RegistryAuth& auth,
                             const std::function<bool()>& cancelled);
    const PullMetrics& metrics() const { return metrics_; }

  private:
    struct InFlight {
        bool done = false;
        Status status;
    };
    RegistryHosts hosts() {
        const std::lock_guard lock(mu_);
        return hosts_;
    }
    /// One pull: its servers in their order.
    struct Job {
        Job(const std::string& name, PullLimits limits, std::function<bool()> cancelled,
            PullMetrics& metrics)
            : context{name, limits, std::move(cancelled), metrics, PullProgress(name)} {}
        PullContext context;
        std::vector<std::unique_ptr<RegistryClient>> servers;
    };
    Result<std::string> run(Job& job, const Reference& reference);
    Status ensure_layers(Job& job, const std::vector<Descriptor>& blobs,
                         const std::vector<std::string>& diff_ids);
    Status ensure_layer(Job& job, const Descriptor& blob, const std::string& diff_id);
    Status fetch_layer(Job& job, const Descriptor& blob, const std::string& diff_id);
    Status download(Job& job, const Descriptor& blob, PartialBlob& file);
    static Status download_from(RegistryClient& server, const Descriptor& blob, PartialBlob& file);
    template <typename T>
    Result<T> ask(Job& job, const std::function<Result<T>(RegistryClient&)>& question);

    ImageStore& store_;
    const PullLimits limits_;
    PartialBlobs partial_;
    PullMetrics metrics_;
    std::mutex mu_;
    RegistryHosts hosts_;  ///< guarded by mu_
    std::condition_variable settled_;
    std::map<std::string, std::shared_ptr<InFlight>> in_flight_;  ///< by diff id; guarded by mu_
};

}  // namespace moat::cri
