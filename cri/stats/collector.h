#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "cri/base/error.h"
#include "cri/images/layer.h"
#include "cri/stats/cpu_rates.h"
#include "cri/stats/figures.h"

namespace moat::cri {

class ContainerManager;
class PodManager;
struct Settings;

/// Measures when asked: cgroups, the sandboxes' own counts, the pods' network namespaces. Whatever
/// a single pod fails to tell is left out and logged; it hides no other pod's figures.
class StatsCollector {
  public:
    StatsCollector(const Settings& settings, PodManager& pods, ContainerManager& containers)
        : settings_(settings), pods_(pods), containers_(containers) {}

    /// ENOENT.
    Result<ContainerFigures> container(const std::string& id);
    using Wanted = std::function<bool(const Container&)>;
    std::vector<ContainerFigures> containers(const Wanted& wanted);
    /// ENOENT; EBUSY: it is not ready.
    Result<PodFigures> pod(const std::string& id);
    using WantedPod = std::function<bool(const Pod&)>;
    /// Those that are ready.
    std::vector<PodFigures> pods(const WantedPod& wanted);
    FilesystemFigures containers_filesystem() const;
    struct MeasuredUsage {
        Usage usage;
        int64_t at_ns = 0;
    };
    /// Disk blocks and inodes below the containers' directory. It takes a walk over all of it, so
    /// it is measured again only when the last walk is fifty times as long ago as it took.
    Result<MeasuredUsage> containers_usage();

  private:
    ContainerFigures measure(const ContainerPtr& container);
    Result<PodFigures> measure(const PodPtr& pod, const std::vector<ContainerPtr>& containers);
    Result<NetworkFigures> network(const std::string& namespace_path);
    /// CPU time per second (cpu_rates.h), by a clock that nobody sets. Both times are
    /// CLOCK_REALTIME.
    std::optional<uint64_t> rate(const std::string& id, int64_t at_ns, uint64_t usage_ns,
                                 int64_t started_at_ns);
    /// Drops rates of what is gone; `containers` and `pods` are all there are.
    void keep_rates(const std::vector<ContainerPtr>& containers, const std::vector<PodPtr>& pods);

    const Settings& settings_;
    PodManager& pods_;
    ContainerManager& containers_;
    CpuRates rates_;
    std::mutex usage_mu_;  ///< held during a walk: whoever comes meanwhile shares its result
    MeasuredUsage usage_;  ///< guarded by usage_mu_, like the next two
    std::chrono::steady_clock::time_point usage_at_;
    std::chrono::steady_clock::duration usage_cost_{0};
};

}  // namespace moat::cri
