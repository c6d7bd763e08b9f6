#include "cri/cni/plugin_network.h"

#include <nlohmann/json.hpp>

#include "cri/base/process.h"

namespace moat::cri {

using nlohmann::json;

namespace {

/// Plugins talk to address managers over networks; kubelet itself gives RunPodSandbox four minutes.
constexpr std::chrono::seconds kPluginTimeout{60};

std::string plugin_input(const CniNetwork& network, const CniNetwork::Plugin& plugin,
                         const CniPod& pod, const std::string& previous) {
    json config = json::parse(plugin.config);
    config["name"] = network.name;
    config["cniVersion"] = network.version;
    config.erase("capabilities");
    if (plugin.port_mappings && !pod.ports.empty()) {
        json ports = json::array();
        for (const PortMapping& port : pod.ports) {
            ports.push_back({{"hostPort", port.host_port},
                             {"containerPort", port.container_port},
                             {"protocol", port.protocol},
                             {"hostIP", port.host_ip}});
        }
        config["runtimeConfig"]["portMappings"] = std::move(ports);
    }
    if (!previous.empty()) {
        config["prevResult"] = json::parse(previous);
    }
    return config.dump();
}

/// The error object that a failed plugin prints (section 5 of the specification).
std::string plugin_error(const ProcessResult& result) {
    try {
        const json error = json::parse(result.out);
        std::string text = error.value("msg", "");
        if (const std::string details = error.value("details", ""); !details.empty()) {
            text += "; " + details;
        }
        if (!text.empty()) {
            return text;
        }
    } catch (const json::exception&) {
        // A plugin that died before it could say anything: its stderr has to do.
    }
    std::string text = result.err.substr(0, 1000);
    return text.empty() ? "exit code " + std::to_string(result.exit_code) : text;
}

Result<std::string> run_plugin(const char* command, const CniNetwork& network,
                               const CniNetwork::Plugin& plugin, const std::string& bin_directory,
                               const CniPod& pod, const std::string& previous) {
    const std::vector<std::string> env = {
        std::string("CNI_COMMAND=") + command,
        "CNI_CONTAINERID=" + pod.id,
        "CNI_NETNS=" + pod.namespace_path,
        "CNI_IFNAME=eth0",
        "CNI_PATH=" + bin_directory,
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=" + pod.name_space + ";K8S_POD_NAME=" +
            pod.name + ";K8S_POD_INFRA_CONTAINER_ID=" + pod.id + ";K8S_POD_UID=" + pod.uid,
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    };
    const std::string step = std::string("CNI ") + command + " by plugin " + plugin.type;
    std::string input;
    try {
        input = plugin_input(network, plugin, pod, previous);
    } catch (const json::exception& e) {
        return internal_error(step + ": " + e.what());
    }
    const ProcessResult result = TRY_STEP(
        step, run_process(bin_directory + "/" + plugin.type, {}, env, input, kPluginTimeout));
    if (result.exit_code != 0) {
        return internal_error(step + ": " + plugin_error(result));
    }
    return result.out;
}

}  // namespace

Result<std::string> cni_add(const CniNetwork& network, const std::string& bin_directory,
                            const CniPod& pod) {
    std::string result;
    for (const CniNetwork::Plugin& plugin : network.plugins) {
        auto next = run_plugin("ADD", network, plugin, bin_directory, pod, result);
        if (!next.ok()) {
            (void)cni_delete(network, bin_directory, pod, result);
            return next.error();
        }
        result = std::move(next).value();
    }
    return result;
}

Status cni_check(const CniNetwork& network, const std::string& bin_directory, const CniPod& pod,
                 const std::string& result) {
    if (network.disable_check || network.version < "0.4.0") {
        return {};
    }
    for (const CniNetwork::Plugin& plugin : network.plugins) {
        TRY(run_plugin("CHECK", network, plugin, bin_directory, pod, result));
    }
    return {};
}

Status cni_delete(const CniNetwork& network, const std::string& bin_directory, const CniPod& pod,
                  const std::string& result) {
    // DEL knows prevResult since 0.4.0.
    const std::string previous = network.version < "0.4.0" ? "" : result;
    for (auto plugin = network.plugins.rbegin(); plugin != network.plugins.rend(); ++plugin) {
        TRY(run_plugin("DEL", network, *plugin, bin_directory, pod, previous));
    }
    return {};
}

}  // namespace moat::cri
