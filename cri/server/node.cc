#include "cri/server/node.h"

#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include "cri/base/log.h"
#include "cri/config/setting_table.h"
#include "cri/handlers/handlers.h"
#include "cri/pods/strays.h"
#include "cri/server/convert.h"

namespace moat::cri {

Node::Node(const Settings& chosen, FileLock lock)
    : settings(chosen), instance(std::move(lock)), current_(chosen) {}

Node::~Node() {
    streaming.reset();
    // Watchers of pods call the containers, so the pods' threads end first.
    pods.reset();
}

Result<ImageAccess> open_images(const Settings& settings) {
    TRY_STEP("--root", make_directories(settings.root, 0711));
    ImageAccess access;
    access.database = TRY(Database::open(settings.database_path()));
    access.images = std::make_unique<ImageStore>(settings.images_directory(), *access.database);
    TRY_STEP("image store", access.images->open());
    return access;
}

Result<std::unique_ptr<Node>> Node::open(const Settings& settings,
                                         std::unique_ptr<Handlers> handlers) {
    RegistryHosts hosts(settings.registry_config_dir, settings.registry_mirrors);
    TRY(hosts.check());
    TRY_STEP("--root", make_directories(settings.root, 0711));
    auto lock = FileLock::acquire(settings.root + "/moatd.lock", FileLock::Mode::kExclusive,
                                  FileLock::Wait::kNo);
    if (!lock.ok()) {
        return lock.error().code() == EWOULDBLOCK
                   ? wrong_state("--root " + settings.root + ": another moatd is running on it")
                   : lock.error();
    }
    std::unique_ptr<Node> node(new Node(settings, std::move(*lock)));
    for (const std::string& path : {settings.root + "/pods", settings.root + "/containers",
                                    settings.state, settings.namespaces_directory()}) {
        TRY_STEP("state directories", make_directories(path, 0711));
    }
    ImageAccess access = TRY(open_images(settings));
    node->database = std::move(access.database);
    node->images = std::move(access.images);
    node->puller = std::make_unique<ImagePuller>(
        *node->images, std::move(hosts),
        PullLimits{.stall_seconds = settings.pull_stall_seconds,
                   .partial_bytes = static_cast<uint64_t>(settings.max_partial_bytes),
                   .layer_bytes = static_cast<uint64_t>(settings.max_layer_bytes)});
    node->handlers = std::move(handlers);
    node->networks = std::make_unique<PodNetworks>(node->settings, *node->database);
    node->pods = std::make_unique<PodManager>(node->settings, *node->database, *node->handlers,
                                              *node->networks, node->events);
    node->containers = std::make_unique<ContainerManager>(node->settings, *node->database,
                                                          *node->images, *node->pods, node->events);
    node->pods->set_containers(*node->containers);
    node->events.set_describe([pods = node->pods.get(), containers = node->containers.get()](
                                  const std::string& pod_id, api::ContainerEventResponse& event) {
        if (const auto pod = pods->find(pod_id); pod.ok()) {
            fill(*event.mutable_pod_sandbox_status(), (*pod)->snapshot(), *(*pod)->config);
        }
        for (const ContainerPtr& container : containers->list()) {
            if (container->pod_id == pod_id) {
                fill(*event.add_containers_statuses(), container->snapshot(), *container->config);
            }
        }
    });
    node->stats = std::make_unique<StatsCollector>(node->settings, *node->pods, *node->containers);
    TRY_STEP("pods of the last moatd", node->pods->load());
    TRY_STEP("containers of the last moatd", node->containers->recover());
    TRY_STEP("pods of the last moatd", node->pods->recover());
    std::vector<PodRecord> records;
    for (const PodPtr& pod : node->pods->list()) {
        records.push_back(pod->snapshot());
    }
    sweep_strays(settings, *node->pods, *node->containers, *node->handlers);
    TRY_STEP("networks of the last moatd", node->networks->recover(records));
    node->streaming = std::make_unique<streaming::StreamingServer>(node->settings,
                                                                   *node->containers, *node->pods);
    TRY(node->streaming->start());
    return node;
}

Settings Node::current_settings() {
    const std::lock_guard lock(current_mu_);
    return current_;
}

void Node::apply(const Settings& changed) {
    const std::lock_guard lock(current_mu_);
    std::string taken;
    std::string waiting;
    for (const Setting& setting : setting_table()) {
        if (same_value(current_, changed, setting)) {
            continue;
        }
        std::string& list = setting.takes == Takes::kReload ? taken : waiting;
        list += (list.empty() ? "" : ", ") + std::string(setting.key);
        if (setting.takes == Takes::kReload) {
            copy_value(changed, current_, setting);
        }
    }
    configure_log(current_);
    puller->set_hosts(RegistryHosts(current_.registry_config_dir, current_.registry_mirrors));
    networks->configure(current_);
    spdlog::info("configuration reloaded; changed: {}", taken.empty() ? "nothing" : taken);
    if (!waiting.empty()) {
        spdlog::warn("configuration: needs a restart of moatd: {}", waiting);
    }
}

}  // namespace moat::cri
