#include "cri/cni/plugin_network.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cri/base/process.h"
#include "cri/metrics/metrics.h"

namespace moat::cri {

using nlohmann::json;

namespace {

constexpr char kInterface[] = "eth0";
/// The burst that containerd gives the bandwidth plugin: as much as it takes.
constexpr uint32_t kBurst = ~uint32_t{0};

/// What the plugin has declared and the pod has, under the names of the CNI conventions.
json runtime_config(const CniNetwork::Plugin& plugin, const CniPod& pod) {
    json config = json::object();
    if (plugin.has("portMappings") && !pod.ports.empty()) {
        for (const PortMapping& port : pod.ports) {
            config["portMappings"].push_back({{"hostPort", port.host_port},
                                              {"containerPort", port.container_port},
                                              {"protocol", port.protocol},
                                              {"hostIP", port.host_ip}});
        }
    }
    if (plugin.has("bandwidth") && (pod.bandwidth.ingress != 0 || pod.bandwidth.egress != 0)) {
        json& bandwidth = config["bandwidth"];
        for (const auto& [name, rate] : {std::pair("ingress", pod.bandwidth.ingress),
                                         std::pair("egress", pod.bandwidth.egress)}) {
            if (rate != 0) {
                bandwidth[std::string(name) + "Rate"] = rate;
                bandwidth[std::string(name) + "Burst"] = kBurst;
            }
        }
    }
    if (plugin.has("dns") && !pod.dns.empty()) {
        config["dns"] = {{"servers", pod.dns.servers},
                         {"searches", pod.dns.searches},
                         {"options", pod.dns.options}};
    }
    if (plugin.has("ipRanges")) {
        for (const std::string& range : pod.ip_ranges) {
            config["ipRanges"].push_back(json::array({{{"subnet", range}}}));
        }
    }
    if (plugin.has("io.kubernetes.cri.pod-annotations") && !pod.annotations.empty()) {
        config["io.kubernetes.cri.pod-annotations"] = pod.annotations;
    }
    if (plugin.has("cgroupPath") && !pod.cgroup_path.empty()) {
        config["cgroupPath"] = pod.cgroup_path;
    }
    return config;
}

/// The plugin's configuration as it gets it on stdin: without the capabilities, with the list's
/// name and version.
json plugin_config(const CniNetwork& network, const CniNetwork::Plugin& plugin) {
    json config = json::parse(plugin.config);
    config["name"] = network.name;
    config["cniVersion"] = network.version;
    config.erase("capabilities");
    return config;
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

std::string step_of(const char* verb, const CniNetwork::Plugin& plugin) {
    return std::string("CNI ") + verb + " by plugin " + plugin.type;
}

Result<std::string> run_plugin(const char* verb, const CniNetwork::Plugin& plugin,
                               const CniPlugins& plugins, const json& config,
                               std::vector<std::string> env) {
    const std::string step = step_of(verb, plugin);
    env.push_back(std::string("CNI_COMMAND=") + verb);
    env.push_back("CNI_PATH=" + plugins.directory);
    env.push_back("PATH=/usr/sbin:/usr/bin:/sbin:/bin");
    const std::string input = config.dump(-1, ' ', false, json::error_handler_t::replace);
    const auto start = std::chrono::steady_clock::now();
    auto ran = run_process(plugins.directory + "/" + plugin.type, {}, env, input, plugins.timeout);
    metrics::cni_call(
        verb, ran.ok() && ran->exit_code == 0,
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    const ProcessResult result = TRY_STEP(step, std::move(ran));
    if (result.exit_code != 0) {
        return internal_error(step + ": " + plugin_error(result));
    }
    return result.out;
}

/// A verb about one pod.
Result<std::string> run_for_pod(const char* verb, const CniNetwork& network,
                                const CniNetwork::Plugin& plugin, const CniPlugins& plugins,
                                const CniPod& pod, const std::string& previous) {
    json config;
    try {
        config = plugin_config(network, plugin);
        if (json runtime = runtime_config(plugin, pod); !runtime.empty()) {
            config["runtimeConfig"] = std::move(runtime);
        }
        if (!previous.empty()) {
            config["prevResult"] = json::parse(previous);
        }
    } catch (const json::exception& e) {
        return internal_error(step_of(verb, plugin) + ": " + e.what());
    }
    return run_plugin(verb, plugin, plugins, config,
                      {"CNI_CONTAINERID=" + pod.id, "CNI_NETNS=" + pod.namespace_path,
                       std::string("CNI_IFNAME=") + kInterface,
                       "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=" + pod.name_space +
                           ";K8S_POD_NAME=" + pod.name + ";K8S_POD_INFRA_CONTAINER_ID=" + pod.id +
                           ";K8S_POD_UID=" + pod.uid});
}

/// The next plugin, and DEL, get what this one printed: it has to be a result.
Status check_result(const std::string& step, const std::string& text) {
    const json result = json::parse(text, nullptr, false);
    if (!result.is_object()) {
        return internal_error(step + ": what it printed is not a result: " + text.substr(0, 200));
    }
    return {};
}

}  // namespace

Result<uint64_t> parse_bandwidth(const std::string& text) {
    static constexpr std::pair<std::string_view, double> kSuffixes[] = {
        {"", 1},        {"k", 1e3},     {"M", 1e6},     {"G", 1e9},     {"T", 1e12}, {"P", 1e15},
        {"Ki", 0x1p10}, {"Mi", 0x1p20}, {"Gi", 0x1p30}, {"Ti", 0x1p40}, {"m", 1e-3}};
    double number = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    for (const auto& [suffix, factor] : kSuffixes) {
        if (error == std::errc() &&
            suffix == std::string_view(stop, static_cast<size_t>(end - stop))) {
            const double value = std::ceil(number * factor);
            if (!(value >= 1e3 && value <= 1e15)) {
                return invalid_argument("\"" + text + "\": not from 1k to 1P bits a second");
            }
            return static_cast<uint64_t>(value);
        }
    }
    return invalid_argument("\"" + text + "\": not a quantity such as 10M");
}

Result<std::string> cni_add(const CniNetwork& network, const CniPlugins& plugins,
                            const CniPod& pod) {
    std::string result;
    for (const CniNetwork::Plugin& plugin : network.plugins) {
        auto next = run_for_pod("ADD", network, plugin, plugins, pod, result);
        Status usable =
            next.ok() ? check_result(step_of("ADD", plugin), *next) : Status(next.error());
        if (!usable.ok()) {
            // The list as a whole: plugins behind this one have nothing and say so by success.
            const Status undone = cni_delete(network, plugins, pod, result);
            return undone.ok() ? usable.error()
                               : Error(usable.error().code(), usable.error().message() + "; and " +
                                                                  undone.error().message());
        }
        result = std::move(next).value();
    }
    return result;
}

Status cni_check(const CniNetwork& network, const CniPlugins& plugins, const CniPod& pod,
                 const std::string& result) {
    if (network.disable_check || !network.at_least(0, 4)) {
        return {};
    }
    for (const CniNetwork::Plugin& plugin : network.plugins) {
        TRY(run_for_pod("CHECK", network, plugin, plugins, pod, result));
    }
    return {};
}

Status cni_delete(const CniNetwork& network, const CniPlugins& plugins, const CniPod& pod,
                  const std::string& result) {
    // DEL knows prevResult since 0.4.0.
    const std::string previous = network.at_least(0, 4) ? result : "";
    Status first;
    for (auto plugin = network.plugins.rbegin(); plugin != network.plugins.rend(); ++plugin) {
        const auto deleted = run_for_pod("DEL", network, *plugin, plugins, pod, previous);
        if (!deleted.ok() && first.ok()) {
            first = deleted.error();
        }
    }
    return first;
}

Status cni_status(const CniNetwork& network, const CniPlugins& plugins) {
    if (!network.at_least(1, 1)) {
        return {};
    }
    for (const CniNetwork::Plugin& plugin : network.plugins) {
        TRY(run_plugin("STATUS", plugin, plugins, plugin_config(network, plugin), {}));
    }
    return {};
}

Status cni_collect(const CniNetwork& network, const CniPlugins& plugins,
                   const std::vector<std::string>& pods) {
    if (!network.at_least(1, 1) || network.disable_gc) {
        return {};
    }
    json attachments = json::array();
    for (const std::string& pod : pods) {
        attachments.push_back({{"containerID", pod}, {"ifname", kInterface}});
    }
    Status first;
    for (const CniNetwork::Plugin& plugin : network.plugins) {
        json config = plugin_config(network, plugin);
        config["cni.dev/valid-attachments"] = attachments;
        const auto collected = run_plugin("GC", plugin, plugins, config, {});
        if (!collected.ok() && first.ok()) {
            first = collected.error();
        }
    }
    return first;
}

}  // namespace moat::cri
