#include "cri/stats/collector.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <climits>

#include "cri/base/files.h"
#include "cri/base/settings.h"
#include "cri/cni/netns.h"
#include "cri/containers/container_manager.h"
#include "cri/images/tree.h"
#include "cri/pods/pod_manager.h"

namespace moat::cri {

namespace {

/// At most this part of one CPU's time goes into walking the containers' directory.
constexpr int kUsageCostShare = 50;

}  // namespace

std::string device_name(uint32_t major, uint32_t minor) {
    const std::string number = std::to_string(major) + ":" + std::to_string(minor);
    char target[PATH_MAX];
    const ssize_t n = readlink(("/sys/dev/block/" + number).c_str(), target, sizeof(target));
    if (n <= 0) {
        return number;
    }
    const std::string_view path(target, static_cast<size_t>(n));
    return "/dev/" + std::string(path.substr(path.rfind('/') + 1));
}

std::optional<uint64_t> StatsCollector::rate(const std::string& id, int64_t at_ns,
                                             uint64_t usage_ns, int64_t started_at_ns) {
    const int64_t now = monotonic_ns();
    const int64_t age = at_ns - started_at_ns;
    // An age that the clock's last step has spoiled is none.
    const bool known = started_at_ns > 0 && age >= 0 && age < now;
    return rates_.note(id, now, usage_ns, known ? now - age : 0);
}

ContainerFigures StatsCollector::measure(const ContainerPtr& container) {
    ContainerFigures figures;
    figures.container = container;
    figures.record = container->snapshot();
    figures.at_ns = now_ns();
    if (figures.record.phase != ContainerPhase::kRunning) {
        return figures;
    }
    auto stats = container->runtime.stats(container->id);
    if (!stats.ok()) {
        // It may just have ended; then there is nothing to say about it.
        spdlog::debug("container {}: pod {}: statistics: {}", container->id, container->pod_id,
                      stats.error().message());
        return figures;
    }
    figures.stats = std::move(*stats);
    figures.nano_cores = rate(container->id, figures.at_ns, figures.stats->cpu_usage_ns,
                              figures.record.started_at_ns);
    return figures;
}

Result<ContainerFigures> StatsCollector::container(const std::string& id) {
    return measure(TRY(containers_.find(id)));
}

std::vector<ContainerFigures> StatsCollector::containers(const Wanted& wanted) {
    const auto all = containers_.list();
    keep_rates(all, pods_.list());
    std::vector<ContainerFigures> figures;
    for (const ContainerPtr& container : all) {
        if (wanted(*container)) {
            figures.push_back(measure(container));
        }
    }
    return figures;
}

Result<NetworkFigures> StatsCollector::network(const std::string& namespace_path) {
    NetworkFigures figures;
    TRY(in_network_namespace(namespace_path, [&]() -> Status {
        Netlink netlink = TRY(Netlink::open());
        figures.links = TRY(netlink.links());
        std::erase_if(figures.links, [](const LinkFigures& link) { return link.loopback; });
        figures.default_link = TRY(netlink.default_link());
        // A pod without a default route still has one interface that people mean.
        for (const LinkFigures& link : figures.links) {
            if (figures.default_link == 0 && (link.name == "eth0" || figures.links.size() == 1)) {
                figures.default_link = link.index;
            }
        }
        return {};
    }));
    return figures;
}

Result<PodFigures> StatsCollector::measure(const PodPtr& pod,
                                           const std::vector<ContainerPtr>& containers) {
    PodFigures figures;
    figures.pod = pod;
    figures.record = pod->snapshot();
    if (figures.record.state != PodState::kReady) {
        return wrong_state("pod " + pod->id + ": statistics: the pod is not ready");
    }
    for (const ContainerPtr& container : containers) {
        if (container->pod_id == pod->id) {
            if (auto one = measure(container); one.stats) {
                figures.containers.push_back(std::move(one));
            }
        }
    }
    figures.at_ns = now_ns();
    figures.stats = TRY_HOST("pod " + pod->id, pod->runtime().sandbox_stats(pod->id));
    figures.nano_cores =
        rate(pod->id, figures.at_ns, figures.stats.cpu_usage_ns, figures.record.created_at_ns);
    if (figures.record.network.kind != PodNetwork::Kind::kNode) {
        auto network = this->network(figures.record.network.namespace_path);
        if (network.ok()) {
            figures.network = std::move(*network);
        } else {
            spdlog::warn("pod {}: statistics of its network: {}", pod->id,
                         network.error().message());
        }
    }
    return figures;
}

Result<PodFigures> StatsCollector::pod(const std::string& id) {
    return measure(TRY(pods_.find(id)), containers_.list());
}

std::vector<PodFigures> StatsCollector::pods(const WantedPod& wanted) {
    const auto containers = containers_.list();
    const auto all = pods_.list();
    keep_rates(containers, all);
    std::vector<PodFigures> figures;
    for (const PodPtr& pod : all) {
        if (pod->snapshot().state != PodState::kReady || !wanted(*pod)) {
            continue;
        }
        auto one = measure(pod, containers);
        if (one.ok()) {
            figures.push_back(std::move(*one));
        } else {
            spdlog::debug("pod {}: statistics: {}", pod->id, one.error().message());
        }
    }
    return figures;
}

void StatsCollector::keep_rates(const std::vector<ContainerPtr>& containers,
                                const std::vector<PodPtr>& pods) {
    std::set<std::string> ids;
    for (const ContainerPtr& container : containers) {
        ids.insert(container->id);
    }
    for (const PodPtr& pod : pods) {
        ids.insert(pod->id);
    }
    rates_.keep(ids);
}

Result<StatsCollector::MeasuredUsage> StatsCollector::containers_usage() {
    const std::lock_guard lock(usage_mu_);
    const auto began = std::chrono::steady_clock::now();
    if (usage_.at_ns != 0 && began - usage_at_ < kUsageCostShare * usage_cost_) {
        return usage_;
    }
    const std::string path = settings_.root + "/containers";
    const ScopedFd directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) {
        return host_error(Error::from_errno(errno, "open " + path), "usage of the containers");
    }
    const int64_t at_ns = now_ns();
    usage_ = {TRY_HOST("usage of the containers", tree_usage(directory.get())), at_ns};
    usage_at_ = std::chrono::steady_clock::now();
    usage_cost_ = usage_at_ - began;
    return usage_;
}

FilesystemFigures StatsCollector::containers_filesystem() const {
    FilesystemFigures figures;
    figures.mountpoint = settings_.root + "/containers";
    struct statvfs fs {};
    if (statvfs(figures.mountpoint.c_str(), &fs) == 0) {
        figures.total_bytes = uint64_t{fs.f_blocks} * fs.f_frsize;
        figures.total_inodes = fs.f_files;
        figures.free_inodes = fs.f_ffree;
    }
    struct stat st {};
    if (stat(figures.mountpoint.c_str(), &st) == 0) {
        figures.device = device_name(major(st.st_dev), minor(st.st_dev));
    }
    return figures;
}

}  // namespace moat::cri
