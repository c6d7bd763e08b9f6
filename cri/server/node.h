#pragma once

#include <memory>
#include <mutex>

#include "cri/base/settings.h"
#include "cri/containers/container_manager.h"
#include "cri/events/container_events.h"
#include "cri/images/image_store.h"
#include "cri/images/puller.h"
#include "cri/pods/pod_manager.h"
#include "cri/stats/collector.h"
#include "cri/streaming/streaming_server.h"

namespace moat::cri {

/// Everything behind the services, put together in the order in which it depends on each other.
struct Node {
    /// Opens the database, finds what the last moatd left, and settles it. EBUSY: another moatd has
    /// this root.
    static Result<std::unique_ptr<Node>> open(const Settings& settings,
                                              std::unique_ptr<Handlers> handlers);
    ~Node();

    /// Takes over what a running moatd can, and logs what needs a restart.
    void apply(const Settings& changed);
    /// Those in force: the start's, with what reloads have changed.
    Settings current_settings();

    const Settings settings;  ///< the start's
    FileLock instance;        ///< one moatd per root
    std::unique_ptr<Database> database;
    std::unique_ptr<Handlers> handlers;
    std::unique_ptr<ImageStore> images;
    std::unique_ptr<ImagePuller> puller;
    std::unique_ptr<PodNetworks> networks;
    ContainerEvents events;
    std::unique_ptr<PodManager> pods;
    std::unique_ptr<ContainerManager> containers;
    std::unique_ptr<StatsCollector> stats;
    std::unique_ptr<streaming::StreamingServer> streaming;

  private:
    std::mutex current_mu_;
    Settings current_;  ///< guarded by current_mu_
    Node(const Settings& chosen, FileLock lock);
};

/// Opens database and image store of a root, as `moatd image` does beside a running moatd.
struct ImageAccess {
    std::unique_ptr<Database> database;
    std::unique_ptr<ImageStore> images;
};
Result<ImageAccess> open_images(const Settings& settings);

}  // namespace moat::cri
