#include "cri/pods/pod_network.h"

#include <arpa/inet.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>

#include "api.pb.h"
#include "cri/base/fault_point.h"
#include "cri/base/files.h"
#include "cri/base/settings.h"
#include "cri/cni/netns.h"
#include "cri/cni/plugin_network.h"

namespace moat::cri {

namespace {

/// The host ports that the pod asks for. EINVAL names the field.
Result<std::vector<PortMapping>> host_ports(const api::PodSandboxConfig& config) {
    std::vector<PortMapping> ports;
    for (const auto& port : config.port_mappings()) {
        const auto refuse = [](const std::string& what) {
            return invalid_argument("config.port_mappings: " + what);
        };
        if (port.host_port() == 0) {
            continue;  // it only says what the pod listens on
        }
        static constexpr const char* kNames[] = {"tcp", "udp", "sctp"};
        const auto protocol = static_cast<size_t>(port.protocol());
        if (protocol >= std::size(kNames)) {
            return refuse("protocol " + std::to_string(port.protocol()) + ": unknown");
        }
        for (const int number : {port.host_port(), port.container_port()}) {
            if (number < 1 || number > 65535) {
                return refuse("port " + std::to_string(number) + ": not from 1 to 65535");
            }
        }
        unsigned char address[16];
        std::string host_ip = port.host_ip();
        if (!host_ip.empty() && inet_pton(AF_INET, host_ip.c_str(), address) != 1 &&
            inet_pton(AF_INET6, host_ip.c_str(), address) != 1) {
            return refuse("host_ip \"" + host_ip + "\": not an address");
        }
        if (host_ip == "0.0.0.0" || host_ip == "::") {
            host_ip.clear();
        }
        ports.push_back({kNames[protocol], port.host_port(), port.container_port(), host_ip});
    }
    return ports;
}

Result<Bandwidth> bandwidth(const api::PodSandboxConfig& config) {
    Bandwidth result;
    for (const auto& [name, into] :
         {std::pair("kubernetes.io/ingress-bandwidth", &Bandwidth::ingress),
          std::pair("kubernetes.io/egress-bandwidth", &Bandwidth::egress)}) {
        if (const auto it = config.annotations().find(name); it != config.annotations().end()) {
            result.*into =
                TRY_STEP(std::string("config.annotations: ") + name, parse_bandwidth(it->second));
        }
    }
    return result;
}

}  // namespace

Result<CniPod> PodNetworks::cni_pod(const PodRecord& pod, const api::PodSandboxConfig& config) {
    CniPod result;
    result.id = pod.id;
    result.name = pod.name;
    result.name_space = pod.name_space;
    result.uid = pod.uid;
    result.namespace_path = pod.network.namespace_path;
    result.ports = TRY(host_ports(config));
    result.bandwidth = TRY(bandwidth(config));
    const auto& dns = config.dns_config();
    result.dns.servers = {dns.servers().begin(), dns.servers().end()};
    result.dns.searches = {dns.searches().begin(), dns.searches().end()};
    result.dns.options = {dns.options().begin(), dns.options().end()};
    result.annotations = {config.annotations().begin(), config.annotations().end()};
    result.cgroup_path = config.linux().cgroup_parent();
    result.ip_ranges = TRY(builtin_.node_ranges());
    return result;
}

Result<PodNetwork> PodNetworks::choose(const std::string& pod_id,
                                       const api::PodSandboxConfig& config) {
    PodNetwork network;
    if (config.linux().security_context().namespace_options().network() == api::NODE) {
        return network;
    }
    const std::vector<PortMapping> ports = TRY(host_ports(config));
    TRY(bandwidth(config));
    network.namespace_path = settings_.namespaces_directory() + "/" + pod_id;
    auto configured = TRY_HOST("network of the pod", load_cni_network(cni().conf_dir));
    if (configured) {
        network.kind = PodNetwork::Kind::kCni;
        network.cni_config = configured->source;
        return network;
    }
    network.kind = PodNetwork::Kind::kBuiltin;
    for (const PortMapping& port : ports) {
        if (port.host_ip.find(':') != std::string::npos) {
            return not_supported("config.port_mappings: host_ip " + port.host_ip +
                                 ": the built-in network speaks IPv4");
        }
    }
    return network;
}

Status PodNetworks::set_up(const PodRecord& pod, const api::PodSandboxConfig& config,
                           PodNetwork& network, const std::optional<UserNamespaceIds>& ids) {
    if (network.kind == PodNetwork::Kind::kNode) {
        return {};
    }
    TRY_HOST("network namespace", create_network_namespace(network.namespace_path, ids));
    fault_point("network.namespace made");
    if (network.kind == PodNetwork::Kind::kBuiltin) {
        const std::vector<PortMapping> ports = TRY(host_ports(config));
        network.ips = {
            TRY_HOST("network of the pod", builtin_.add(pod.id, network.namespace_path, ports))};
        return {};
    }
    const CniNetwork list = TRY_HOST("network of the pod", parse_cni_network(network.cni_config));
    network.cni_result =
        TRY_HOST("network of the pod", cni_add(list, cni().plugins, TRY(cni_pod(pod, config))));
    network.ips = TRY_HOST("network of the pod", parse_cni_result(network.cni_result)).ips;
    if (network.ips.empty()) {
        return internal_error("network of the pod: CNI network " + list.name + " gave no address");
    }
    return {};
}

Status PodNetworks::check(const PodRecord& pod, const api::PodSandboxConfig& config) {
    if (pod.network.kind != PodNetwork::Kind::kCni) {
        return {};
    }
    const CniNetwork list = TRY(parse_cni_network(pod.network.cni_config));
    const CniPod arguments = TRY(cni_pod(pod, config));
    return cni_check(list, cni().plugins, arguments, pod.network.cni_result);
}

Status PodNetworks::tear_down(const PodRecord& pod, const api::PodSandboxConfig& config) {
    const PodNetwork& network = pod.network;
    if (network.kind == PodNetwork::Kind::kNode) {
        return {};
    }
    if (network.kind == PodNetwork::Kind::kBuiltin) {
        TRY_HOST("network of the pod", builtin_.remove(pod.id));
    } else {
        const CniNetwork list =
            TRY_HOST("network of the pod", parse_cni_network(network.cni_config));
        CniPod cni_arguments = TRY(cni_pod(pod, config));
        // After a reboot the namespace is gone; plugins then get none and still free the address.
        if (access(network.namespace_path.c_str(), F_OK) != 0) {
            cni_arguments.namespace_path.clear();
        }
        TRY_HOST("network of the pod",
                 cni_delete(list, cni().plugins, cni_arguments, network.cni_result));
    }
    fault_point("network.before its namespace goes");
    TRY_HOST("network namespace", remove_network_namespace(network.namespace_path));
    return {};
}

Status PodNetworks::ready() {
    const Cni where = cni();
    const auto list = TRY(load_cni_network(where.conf_dir));
    if (!list) {
        return {};
    }
    for (const CniNetwork::Plugin& plugin : list->plugins) {
        const std::string path = where.plugins.directory + "/" + plugin.type;
        if (access(path.c_str(), X_OK) != 0) {
            return Error::from_errno(errno, "CNI network " + list->name + ": plugin " + path);
        }
    }
    // Kubelet asks every few seconds and waits.
    CniPlugins quick = where.plugins;
    quick.timeout = std::min<std::chrono::milliseconds>(quick.timeout, std::chrono::seconds(10));
    return cni_status(*list, quick);
}

CniDns PodNetworks::dns(const PodNetwork& network) {
    if (network.cni_result.empty()) {
        return {};
    }
    const auto result = parse_cni_result(network.cni_result);
    return result.ok() ? result->dns : CniDns();
}

Status PodNetworks::recover(const std::vector<PodRecord>& pods) {
    std::vector<std::string> builtin_pods;
    std::vector<std::string> cni_pods;
    for (const PodRecord& pod : pods) {
        if (pod.network.kind == PodNetwork::Kind::kBuiltin) {
            builtin_pods.push_back(pod.id);
        } else if (pod.network.kind == PodNetwork::Kind::kCni && pod.state != PodState::kStopped) {
            cni_pods.push_back(pod.id);
        }
    }
    TRY(builtin_.recover(builtin_pods));
    const auto list = load_cni_network(cni().conf_dir);
    if (!list.ok() || !*list) {
        return {};  // Status tells of a broken configuration
    }
    if (const Status collected = cni_collect(**list, cni().plugins, cni_pods); !collected.ok()) {
        spdlog::warn("network: left over by pods that are gone: {}", collected.error().message());
    }
    return {};
}

}  // namespace moat::cri
