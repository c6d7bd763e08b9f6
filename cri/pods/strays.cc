#include "cri/pods/strays.h"

#include <dirent.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include "cri/base/files.h"
#include "cri/base/log.h"
#include "cri/base/settings.h"
#include "cri/cni/netns.h"
#include "cri/containers/container_manager.h"
#include "cri/handlers/handlers.h"
#include "cri/metrics/metrics.h"
#include "cri/pods/pod_manager.h"
#include "runtime/runtime.h"

namespace moat::cri {

namespace {

bool is_id(const std::string& name) {
    return name.size() == 64 && std::all_of(name.begin(), name.end(), [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
           });
}

std::vector<std::string> ids_in(const std::string& directory) {
    std::vector<std::string> ids;
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(directory.c_str()), closedir);
    while (const dirent* entry = dir == nullptr ? nullptr : readdir(dir.get())) {
        if (is_id(entry->d_name)) {
            ids.emplace_back(entry->d_name);
        }
    }
    return ids;
}

template <typename Remove>
void sweep(const char* what, const std::string& directory, const std::set<std::string>& known,
           const Remove& remove) {
    for (const std::string& id : ids_in(directory)) {
        if (known.contains(id)) {
            continue;
        }
        const Status removed = remove(id, directory + "/" + id);
        if (removed.ok()) {
            log_event(spdlog::level::warn, "stray removed", {{"kind", what}, {"id", id}});
            metrics::recovered("stray_removed");
        } else {
            log_event(spdlog::level::err, "stray not removed",
                      {{"kind", what}, {"id", id}, {"error", removed.error().message()}});
        }
    }
}

}  // namespace

void sweep_strays(const Settings& settings, PodManager& pods, ContainerManager& containers,
                  const Handlers& handlers) {
    std::set<std::string> known_pods;
    std::set<std::string> known_containers;
    for (const PodPtr& pod : pods.list()) {
        known_pods.insert(pod->id);
    }
    for (const ContainerPtr& container : containers.list()) {
        known_containers.insert(container->id);
    }
    // Sandboxes first: they live in the namespaces and read the files. The state directory is
    // shared with people's `moat run`, whose sandboxes have no annotation of ours.
    std::set<std::string> known = known_pods;
    known.insert(known_containers.begin(), known_containers.end());
    for (const std::string& id : ids_in(settings.state)) {
        if (known.contains(id)) {
            continue;
        }
        for (const auto& handler : handlers.all()) {
            const auto info = handler->runtime->state(id);
            const auto mark = info.ok() ? info->annotations.find("io.kubernetes.cri.sandbox-id")
                                        : std::map<std::string, std::string>::const_iterator();
            if (!info.ok() || mark == info->annotations.end() || mark->second != id) {
                continue;
            }
            const Status removed = handler->runtime->destroy_sandbox(id);
            if (removed.ok()) {
                log_event(spdlog::level::warn, "stray removed", {{"kind", "sandbox"}, {"id", id}});
                metrics::recovered("stray_removed");
            } else {
                log_event(spdlog::level::err, "stray not removed",
                          {{"kind", "sandbox"}, {"id", id}, {"error", removed.error().message()}});
            }
        }
    }
    sweep(
        "network namespace", settings.namespaces_directory(), known_pods,
        [](const std::string&, const std::string& path) { return remove_network_namespace(path); });
    sweep("pod's files", settings.root + "/pods", known_pods,
          [](const std::string&, const std::string& path) { return remove_tree(path); });
    sweep("container's bundle", settings.root + "/containers", known_containers,
          [](const std::string&, const std::string& path) { return remove_tree(path); });
}

}  // namespace moat::cri
