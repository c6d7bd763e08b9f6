// The one list of metrics: names, help and labels as cAdvisor has them, and where each value comes
// from. A metric without a value (no such controller on this machine) is left out of an answer.

#include <functional>

#include "cri/stats/messages.h"

namespace moat::cri {

namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;

/// What the metrics of one row, a container or a pod as a whole, are made from.
struct Subject {
    const runtime::Stats* stats = nullptr;
    const FilesystemFigures* fs = nullptr;
    const NetworkFigures* network = nullptr;  ///< of pods
    bool is_pod = false;
    int64_t at_ns = 0;
    int64_t started_at_ns = 0;
};

struct Value {
    uint64_t value = 0;
    std::vector<std::string> labels;  ///< those of the metric's own
};
using Values = std::vector<Value>;

struct Definition {
    const char* name;
    const char* help;
    std::vector<const char*> labels;  ///< behind the common ones
    api::MetricType type;
    std::function<Values(const Subject&)> values;
};

constexpr const char* kCommonLabels[] = {"container", "id", "image", "name", "namespace", "pod"};

using runtime::Stats;

/// A figure that there always is.
std::function<Values(const Subject&)> of(uint64_t Stats::*field, uint64_t unit = 1) {
    return [field, unit](const Subject& s) -> Values { return {{s.stats->*field / unit, {}}}; };
}

/// A figure of containers only.
std::function<Values(const Subject&)> of_container(uint64_t Stats::*field) {
    return [field](const Subject& s) -> Values {
        return s.is_pod ? Values() : Values{{s.stats->*field, {}}};
    };
}

std::function<Values(const Subject&)> of_filesystem(
    const std::function<uint64_t(const Subject&)>& value) {
    return [value](const Subject& s) -> Values {
        return s.is_pod ? Values() : Values{{value(s), {s.fs->device}}};
    };
}

std::function<Values(const Subject&)> of_devices(uint64_t cgroups::DeviceIo::*field) {
    return [field](const Subject& s) {
        Values values;
        for (const auto& device : s.stats->io) {
            values.push_back({device.*field, {device_name(device.major, device.minor)}});
        }
        return values;
    };
}

std::function<Values(const Subject&)> of_links(uint64_t LinkFigures::*field) {
    return [field](const Subject& s) {
        Values values;
        if (s.network != nullptr) {
            for (const LinkFigures& link : s.network->links) {
                values.push_back({link.*field, {link.name}});
            }
        }
        return values;
    };
}

/// «waiting» is PSI's «some», «stalled» its «full».
std::function<Values(const Subject&)> of_pressure(std::optional<cgroups::Pressure> Stats::*field,
                                                  bool full) {
    return [field, full](const Subject& s) -> Values {
        const auto& pressure = s.stats->*field;
        if (!pressure || (full && !pressure->full)) {
            return {};
        }
        return {{(full ? *pressure->full : pressure->some).total_us / 1'000'000, {}}};
    };
}

Values device_usage(const Subject& s) {
    Values values;
    for (const auto& device : s.stats->io) {
        const std::string name = device_name(device.major, device.minor);
        const std::string major = std::to_string(device.major),
                          minor = std::to_string(device.minor);
        values.push_back({device.read_bytes, {name, major, minor, "Read"}});
        values.push_back({device.written_bytes, {name, major, minor, "Write"}});
    }
    return values;
}

Values memory_failures(const Subject& s) {
    return {{s.stats->page_faults, {"pgfault", "container"}},
            {s.stats->page_faults, {"pgfault", "hierarchy"}},
            {s.stats->major_page_faults, {"pgmajfault", "container"}},
            {s.stats->major_page_faults, {"pgmajfault", "hierarchy"}}};
}

const std::vector<Definition>& definitions() {
    using D = cgroups::DeviceIo;
    using L = LinkFigures;
    constexpr auto kCounter = api::COUNTER;
    constexpr auto kGauge = api::GAUGE;
    // clang-format off
    static const auto* const kAll = new std::vector<Definition>{
        {"container_blkio_device_usage_total", "Bytes that block devices read and wrote for the container.", {"device", "major", "minor", "operation"}, kCounter, device_usage},
        {"container_cpu_cfs_periods_total", "Periods of the CPU quota that have passed.", {}, kCounter, of(&Stats::cpu_periods)},
        {"container_cpu_cfs_throttled_periods_total", "Periods in which the CPU quota ran out.", {}, kCounter, of(&Stats::cpu_throttled_periods)},
        {"container_cpu_cfs_throttled_seconds_total", "Seconds for which the CPU quota held processes back.", {}, kCounter, of(&Stats::cpu_throttled_ns, kNsPerSecond)},
        {"container_cpu_system_seconds_total", "CPU seconds used inside the host's kernel.", {}, kCounter, of(&Stats::cpu_system_ns, kNsPerSecond)},
        {"container_cpu_usage_seconds_total", "CPU seconds used.", {"cpu"}, kCounter, [](const Subject& s) -> Values { return {{s.stats->cpu_usage_ns / kNsPerSecond, {"total"}}}; }},
        {"container_cpu_user_seconds_total", "CPU seconds used outside the host's kernel.", {}, kCounter, of(&Stats::cpu_user_ns, kNsPerSecond)},
        {"container_file_descriptors", "Open file descriptors of the container's processes.", {}, kGauge, of_container(&Stats::file_descriptors)},
        {"container_fs_inodes_free", "Free inodes of the file system that holds the container's files.", {"device"}, kGauge, of_filesystem([](const Subject& s) { return s.fs->free_inodes; })},
        {"container_fs_inodes_total", "Inodes of the file system that holds the container's files.", {"device"}, kGauge, of_filesystem([](const Subject& s) { return s.fs->total_inodes; })},
        {"container_fs_limit_bytes", "Size of the file system that holds the container's files.", {"device"}, kGauge, of_filesystem([](const Subject& s) { return s.fs->total_bytes; })},
        {"container_fs_reads_bytes_total", "Bytes read from block devices.", {"device"}, kCounter, of_devices(&D::read_bytes)},
        {"container_fs_reads_total", "Reads from block devices.", {"device"}, kCounter, of_devices(&D::reads)},
        {"container_fs_usage_bytes", "Bytes of the container's writable layer.", {"device"}, kGauge, of_filesystem([](const Subject& s) { return s.stats->writable_layer_bytes; })},
        {"container_fs_writes_bytes_total", "Bytes written to block devices.", {"device"}, kCounter, of_devices(&D::written_bytes)},
        {"container_fs_writes_total", "Writes to block devices.", {"device"}, kCounter, of_devices(&D::writes)},
        {"container_hugetlb_max_usage_bytes", "Most bytes of huge pages that were in use at once.", {"pagesize"}, kGauge, [](const Subject& s) {
            Values values;
            for (const auto& pages : s.stats->huge_pages) {
                if (pages.max_usage_bytes) {
                    values.push_back({*pages.max_usage_bytes, {pages.size}});
                }
            }
            return values;
        }},
        {"container_hugetlb_usage_bytes", "Bytes of huge pages in use.", {"pagesize"}, kGauge, [](const Subject& s) {
            Values values;
            for (const auto& pages : s.stats->huge_pages) {
                values.push_back({pages.usage_bytes, {pages.size}});
            }
            return values;
        }},
        {"container_last_seen", "When these figures were taken, in seconds since the epoch.", {}, kGauge, [](const Subject& s) -> Values { return {{static_cast<uint64_t>(s.at_ns) / kNsPerSecond, {}}}; }},
        {"container_memory_cache", "Bytes of file pages.", {}, kGauge, of(&Stats::memory_cache_bytes)},
        {"container_memory_failcnt", "How often the memory limit was hit.", {}, kCounter, of(&Stats::memory_limit_hits)},
        {"container_memory_failures_total", "Page faults.", {"failure_type", "scope"}, kCounter, memory_failures},
        {"container_memory_kernel_usage", "Bytes of the host kernel's memory.", {}, kGauge, of(&Stats::memory_kernel_bytes)},
        {"container_memory_mapped_file", "Bytes of mapped files.", {}, kGauge, of(&Stats::memory_mapped_file_bytes)},
        {"container_memory_max_usage_bytes", "Most bytes of memory that were in use at once.", {}, kGauge, of(&Stats::memory_max_usage_bytes)},
        {"container_memory_rss", "Bytes of anonymous memory.", {}, kGauge, of(&Stats::memory_rss_bytes)},
        {"container_memory_swap", "Bytes that are swapped out.", {}, kGauge, [](const Subject& s) -> Values { return {{s.stats->swap_usage_bytes.value_or(0), {}}}; }},
        {"container_memory_usage_bytes", "Bytes of memory in use, whenever they were last touched.", {}, kGauge, of(&Stats::memory_usage_bytes)},
        {"container_memory_working_set_bytes", "Bytes of memory in use without inactive file pages.", {}, kGauge, of(&Stats::memory_working_set_bytes)},
        {"container_network_receive_bytes_total", "Bytes received.", {"interface"}, kCounter, of_links(&L::rx_bytes)},
        {"container_network_receive_errors_total", "Errors while receiving.", {"interface"}, kCounter, of_links(&L::rx_errors)},
        {"container_network_receive_packets_dropped_total", "Received packets that were dropped.", {"interface"}, kCounter, of_links(&L::rx_dropped)},
        {"container_network_receive_packets_total", "Packets received.", {"interface"}, kCounter, of_links(&L::rx_packets)},
        {"container_network_transmit_bytes_total", "Bytes sent.", {"interface"}, kCounter, of_links(&L::tx_bytes)},
        {"container_network_transmit_errors_total", "Errors while sending.", {"interface"}, kCounter, of_links(&L::tx_errors)},
        {"container_network_transmit_packets_dropped_total", "Packets to send that were dropped.", {"interface"}, kCounter, of_links(&L::tx_dropped)},
        {"container_network_transmit_packets_total", "Packets sent.", {"interface"}, kCounter, of_links(&L::tx_packets)},
        {"container_oom_events_total", "Processes that were killed for want of memory.", {}, kCounter, of(&Stats::oom_kills)},
        {"container_pressure_cpu_stalled_seconds_total", "Seconds in which all waited for a CPU.", {}, kCounter, of_pressure(&Stats::cpu_pressure, true)},
        {"container_pressure_cpu_waiting_seconds_total", "Seconds in which some waited for a CPU.", {}, kCounter, of_pressure(&Stats::cpu_pressure, false)},
        {"container_pressure_io_stalled_seconds_total", "Seconds in which all waited for input or output.", {}, kCounter, of_pressure(&Stats::io_pressure, true)},
        {"container_pressure_io_waiting_seconds_total", "Seconds in which some waited for input or output.", {}, kCounter, of_pressure(&Stats::io_pressure, false)},
        {"container_pressure_memory_stalled_seconds_total", "Seconds in which all waited for memory.", {}, kCounter, of_pressure(&Stats::memory_pressure, true)},
        {"container_pressure_memory_waiting_seconds_total", "Seconds in which some waited for memory.", {}, kCounter, of_pressure(&Stats::memory_pressure, false)},
        {"container_processes", "Processes.", {}, kGauge, of(&Stats::processes)},
        {"container_sockets", "Open sockets of the container's processes.", {}, kGauge, of_container(&Stats::sockets)},
        {"container_spec_cpu_period", "Period of the CPU quota in microseconds.", {}, kGauge, of(&Stats::cpu_period_us)},
        {"container_spec_cpu_quota", "CPU quota of each period in microseconds.", {}, kGauge, [](const Subject& s) { return s.stats->cpu_quota_us == 0 ? Values() : Values{{s.stats->cpu_quota_us, {}}}; }},
        {"container_spec_cpu_shares", "CPU shares.", {}, kGauge, of(&Stats::cpu_shares)},
        {"container_spec_memory_limit_bytes", "Memory limit in bytes; 0: none.", {}, kGauge, of(&Stats::memory_limit_bytes)},
        {"container_spec_memory_reservation_limit_bytes", "Memory reservation in bytes; 0: none.", {}, kGauge, of(&Stats::memory_reservation_bytes)},
        {"container_spec_memory_swap_limit_bytes", "Limit of swap in bytes; 0: none.", {}, kGauge, [](const Subject& s) -> Values { return {{s.stats->swap_limit_bytes.value_or(0), {}}}; }},
        {"container_start_time_seconds", "When it was started, in seconds since the epoch.", {}, kGauge, [](const Subject& s) -> Values { return {{static_cast<uint64_t>(s.started_at_ns) / kNsPerSecond, {}}}; }},
        {"container_threads", "Threads.", {}, kGauge, of(&Stats::pids)},
        {"container_threads_max", "Most threads that there may be; 0: no limit.", {}, kGauge, of(&Stats::pids_limit)},
        {"container_ulimits_soft", "Soft limits of the container's first process.", {"ulimit"}, kGauge, [](const Subject& s) { return s.stats->open_files_limit ? Values{{*s.stats->open_files_limit, {"max_open_files"}}} : Values(); }},
    };
    // clang-format on
    return *kAll;
}

template <typename Out>
void fill_metrics(Out& out, const Subject& subject, const std::vector<std::string>& common) {
    for (const Definition& definition : definitions()) {
        for (const Value& value : definition.values(subject)) {
            // The timestamp stays 0: it was measured for this very answer.
            auto* metric = out.add_metrics();
            metric->set_name(definition.name);
            metric->set_metric_type(definition.type);
            metric->mutable_value()->set_value(value.value);
            for (const std::string& label : common) {
                metric->add_label_values(label);
            }
            for (const std::string& label : value.labels) {
                metric->add_label_values(label);
            }
        }
    }
}

}  // namespace

void fill(api::ListMetricDescriptorsResponse& out) {
    for (const Definition& definition : definitions()) {
        auto* descriptor = out.add_descriptors();
        descriptor->set_name(definition.name);
        descriptor->set_help(definition.help);
        for (const char* label : kCommonLabels) {
            descriptor->add_label_keys(label);
        }
        for (const char* label : definition.labels) {
            descriptor->add_label_keys(label);
        }
    }
}

void fill(api::PodSandboxMetrics& out, const PodFigures& figures, const FilesystemFigures& fs) {
    out.set_pod_sandbox_id(figures.record.id);
    Subject pod;
    pod.stats = &figures.stats;
    pod.fs = &fs;
    pod.network = figures.network ? &*figures.network : nullptr;
    pod.is_pod = true;
    pod.at_ns = figures.at_ns;
    pod.started_at_ns = figures.record.created_at_ns;
    // An empty container name marks the row of the whole pod, as cAdvisor does for a pod's cgroup:
    // sums over containers leave it out.
    fill_metrics(
        out, pod,
        {"", figures.stats.cgroup, "", "", figures.record.name_space, figures.record.name});
    for (const ContainerFigures& one : figures.containers) {
        Subject container;
        container.stats = &*one.stats;
        container.fs = &fs;
        container.at_ns = one.at_ns;
        container.started_at_ns = one.record.started_at_ns;
        const auto& image = one.container->config->image();
        auto* metrics = out.add_container_metrics();
        metrics->set_container_id(one.record.id);
        fill_metrics(
            *metrics, container,
            {one.record.name, one.stats->cgroup,
             image.user_specified_image().empty() ? image.image() : image.user_specified_image(),
             one.record.id, figures.record.name_space, figures.record.name});
    }
}

}  // namespace moat::cri
