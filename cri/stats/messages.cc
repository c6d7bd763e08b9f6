#include "cri/stats/messages.h"

namespace moat::cri {

namespace {

void fill(api::PsiData& out, const cgroups::Stall& stall) {
    out.set_total(stall.total_us * 1000);
    out.set_avg10(stall.avg10);
    out.set_avg60(stall.avg60);
    out.set_avg300(stall.avg300);
}

void fill(api::PsiStats& out, const cgroups::Pressure& pressure) {
    fill(*out.mutable_some(), pressure.some);
    if (pressure.full) {
        fill(*out.mutable_full(), *pressure.full);
    }
}

uint64_t less(uint64_t limit, uint64_t used) { return limit > used ? limit - used : 0; }

void fill(api::CpuUsage& out, int64_t at_ns, const runtime::Stats& stats,
          const std::optional<uint64_t>& nano_cores) {
    out.set_timestamp(at_ns);
    out.mutable_usage_core_nano_seconds()->set_value(stats.cpu_usage_ns);
    if (nano_cores) {
        out.mutable_usage_nano_cores()->set_value(*nano_cores);
    }
    if (stats.cpu_pressure) {
        fill(*out.mutable_psi(), *stats.cpu_pressure);
    }
}

void fill(api::MemoryUsage& out, int64_t at_ns, const runtime::Stats& stats) {
    out.set_timestamp(at_ns);
    out.mutable_working_set_bytes()->set_value(stats.memory_working_set_bytes);
    if (stats.memory_limit_bytes != 0) {
        out.mutable_available_bytes()->set_value(
            less(stats.memory_limit_bytes, stats.memory_working_set_bytes));
    }
    out.mutable_usage_bytes()->set_value(stats.memory_usage_bytes);
    out.mutable_rss_bytes()->set_value(stats.memory_rss_bytes);
    out.mutable_page_faults()->set_value(stats.page_faults);
    out.mutable_major_page_faults()->set_value(stats.major_page_faults);
    if (stats.memory_pressure) {
        fill(*out.mutable_psi(), *stats.memory_pressure);
    }
}

void fill(api::IoUsage& out, int64_t at_ns, const cgroups::Pressure& pressure) {
    out.set_timestamp(at_ns);
    fill(*out.mutable_psi(), pressure);
}

void fill(api::NetworkInterfaceUsage& out, const LinkFigures& link) {
    out.set_name(link.name);
    out.mutable_rx_bytes()->set_value(link.rx_bytes);
    out.mutable_rx_errors()->set_value(link.rx_errors);
    out.mutable_tx_bytes()->set_value(link.tx_bytes);
    out.mutable_tx_errors()->set_value(link.tx_errors);
}

}  // namespace

void fill(api::ContainerStats& out, const ContainerFigures& figures, const FilesystemFigures& fs) {
    const api::ContainerConfig& config = *figures.container->config;
    auto* attributes = out.mutable_attributes();
    attributes->set_id(figures.record.id);
    *attributes->mutable_metadata() = config.metadata();
    *attributes->mutable_labels() = config.labels();
    *attributes->mutable_annotations() = config.annotations();
    auto* layer = out.mutable_writable_layer();
    layer->set_timestamp(figures.at_ns);
    layer->mutable_fs_id()->set_mountpoint(fs.mountpoint);
    layer->mutable_used_bytes()->set_value(0);
    layer->mutable_inodes_used()->set_value(0);
    if (!figures.stats) {
        return;
    }
    const runtime::Stats& stats = *figures.stats;
    layer->mutable_used_bytes()->set_value(stats.writable_layer_bytes);
    layer->mutable_inodes_used()->set_value(stats.writable_layer_inodes);
    fill(*out.mutable_cpu(), figures.at_ns, stats, figures.nano_cores);
    fill(*out.mutable_memory(), figures.at_ns, stats);
    if (stats.swap_usage_bytes) {
        auto* swap = out.mutable_swap();
        swap->set_timestamp(figures.at_ns);
        swap->mutable_swap_usage_bytes()->set_value(*stats.swap_usage_bytes);
        if (stats.swap_limit_bytes) {
            swap->mutable_swap_available_bytes()->set_value(
                less(*stats.swap_limit_bytes, *stats.swap_usage_bytes));
        }
    }
    if (stats.io_pressure) {
        fill(*out.mutable_io(), figures.at_ns, *stats.io_pressure);
    }
}

void fill(api::PodSandboxStats& out, const PodFigures& figures, const FilesystemFigures& fs) {
    const api::PodSandboxConfig& config = *figures.pod->config;
    auto* attributes = out.mutable_attributes();
    attributes->set_id(figures.record.id);
    *attributes->mutable_metadata() = config.metadata();
    *attributes->mutable_labels() = config.labels();
    *attributes->mutable_annotations() = config.annotations();
    auto* node = out.mutable_linux();
    fill(*node->mutable_cpu(), figures.at_ns, figures.stats, figures.nano_cores);
    fill(*node->mutable_memory(), figures.at_ns, figures.stats);
    auto* process = node->mutable_process();
    process->set_timestamp(figures.at_ns);
    process->mutable_process_count()->set_value(figures.stats.processes);
    if (figures.stats.io_pressure) {
        fill(*node->mutable_io(), figures.at_ns, *figures.stats.io_pressure);
    }
    if (figures.network) {
        auto* network = node->mutable_network();
        network->set_timestamp(figures.at_ns);
        for (const LinkFigures& link : figures.network->links) {
            fill(link.index == figures.network->default_link ? *network->mutable_default_interface()
                                                             : *network->add_interfaces(),
                 link);
        }
    }
    for (const ContainerFigures& container : figures.containers) {
        fill(*node->add_containers(), container, fs);
    }
}

}  // namespace moat::cri
