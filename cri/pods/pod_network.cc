#include "cri/pods/pod_network.h"

#include <sys/stat.h>
#include <unistd.h>

#include "api.pb.h"
#include "cri/base/files.h"
#include "cri/base/settings.h"
#include "cri/cni/netns.h"
#include "cri/cni/plugin_network.h"

namespace moat::cri {

namespace {

CniPod cni_pod(const PodRecord& pod, const api::PodSandboxConfig& config) {
    CniPod result{pod.id, pod.name, pod.name_space, pod.uid, pod.network.namespace_path, {}};
    for (const auto& port : config.port_mappings()) {
        if (port.host_port() > 0) {
            static constexpr const char* kNames[] = {"tcp", "udp", "sctp"};
            const auto protocol = static_cast<size_t>(port.protocol());
            result.ports.push_back({kNames[protocol < 3 ? protocol : 0], port.host_port(),
                                    port.container_port(), port.host_ip()});
        }
    }
    return result;
}

}  // namespace

Result<PodNetwork> PodNetworks::choose(const std::string& pod_id,
                                       const api::PodSandboxConfig& config) {
    PodNetwork network;
    if (config.linux().security_context().namespace_options().network() == api::NODE) {
        return network;
    }
    network.namespace_path = settings_.namespaces_directory() + "/" + pod_id;
    auto cni = TRY_HOST("network of the pod", load_cni_network(directories().conf));
    if (cni) {
        network.kind = PodNetwork::Kind::kCni;
        network.cni_config = cni->source;
        return network;
    }
    network.kind = PodNetwork::Kind::kBuiltin;
    for (const auto& port : config.port_mappings()) {
        if (port.host_port() > 0) {
            return not_supported(
                "config.port_mappings: host port " + std::to_string(port.host_port()) +
                ": the built-in network has none; put a CNI configuration with the plugin "
                "portmap into " +
                directories().conf);
        }
    }
    return network;
}

Status PodNetworks::set_up(const PodRecord& pod, const api::PodSandboxConfig& config,
                           PodNetwork& network) {
    if (network.kind == PodNetwork::Kind::kNode) {
        return {};
    }
    TRY_HOST("network namespace", create_network_namespace(network.namespace_path));
    if (network.kind == PodNetwork::Kind::kBuiltin) {
        network.ips = {
            TRY_HOST("network of the pod", builtin_.add(pod.id, network.namespace_path))};
        return {};
    }
    const CniNetwork cni = TRY_HOST("network of the pod", parse_cni_network(network.cni_config));
    network.cni_result =
        TRY_HOST("network of the pod", cni_add(cni, directories().bin, cni_pod(pod, config)));
    network.ips = TRY_HOST("network of the pod", parse_cni_result(network.cni_result)).ips;
    if (network.ips.empty()) {
        return internal_error("network of the pod: CNI network " + cni.name + " gave no address");
    }
    return {};
}

Status PodNetworks::check(const PodRecord& pod, const api::PodSandboxConfig& config) {
    if (pod.network.kind != PodNetwork::Kind::kCni) {
        return {};
    }
    const CniNetwork cni = TRY(parse_cni_network(pod.network.cni_config));
    return cni_check(cni, directories().bin, cni_pod(pod, config), pod.network.cni_result);
}

Status PodNetworks::tear_down(const PodRecord& pod, const api::PodSandboxConfig& config) {
    const PodNetwork& network = pod.network;
    if (network.kind == PodNetwork::Kind::kNode) {
        return {};
    }
    if (network.kind == PodNetwork::Kind::kBuiltin) {
        TRY_HOST("network of the pod", builtin_.remove(pod.id));
    } else {
        const CniNetwork cni =
            TRY_HOST("network of the pod", parse_cni_network(network.cni_config));
        CniPod cni_arguments = cni_pod(pod, config);
        // After a reboot the namespace is gone; plugins then get none and still free the address.
        if (access(network.namespace_path.c_str(), F_OK) != 0) {
            cni_arguments.namespace_path.clear();
        }
        TRY_HOST("network of the pod",
                 cni_delete(cni, directories().bin, cni_arguments, network.cni_result));
    }
    TRY_HOST("network namespace", remove_network_namespace(network.namespace_path));
    return {};
}

Status PodNetworks::ready() {
    const Directories where = directories();
    const auto cni = TRY(load_cni_network(where.conf));
    if (!cni) {
        return {};
    }
    for (const CniNetwork::Plugin& plugin : cni->plugins) {
        const std::string path = where.bin + "/" + plugin.type;
        if (access(path.c_str(), X_OK) != 0) {
            return Error::from_errno(errno, "CNI network " + cni->name + ": plugin " + path);
        }
    }
    return {};
}

}  // namespace moat::cri
