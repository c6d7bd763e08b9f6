#include "cri/cni/config.h"

#include <dirent.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "cri/base/files.h"

namespace moat::cri {

using nlohmann::json;

namespace {

CniNetwork::Plugin plugin_of(const json& value) {
    CniNetwork::Plugin plugin;
    plugin.type = value.at("type").get<std::string>();
    // The type becomes a file name below the plugin directory.
    if (plugin.type.empty() || plugin.type.find('/') != std::string::npos ||
        plugin.type[0] == '.') {
        throw std::invalid_argument("type: not a plugin's name: \"" + plugin.type + "\"");
    }
    if (const auto it = value.find("capabilities"); it != value.end()) {
        plugin.port_mappings = it->value("portMappings", false);
    }
    plugin.config = value.dump();
    return plugin;
}

}  // namespace

Result<CniNetwork> parse_cni_network(const std::string& text) {
    try {
        const json root = json::parse(text);
        CniNetwork network;
        network.source = text;
        network.name = root.at("name").get<std::string>();
        network.version = root.value("cniVersion", "0.1.0");
        if (const auto it = root.find("plugins"); it != root.end()) {
            network.disable_check = root.value("disableCheck", false);
            for (const json& plugin : *it) {
                network.plugins.push_back(plugin_of(plugin));
            }
        } else {
            network.plugins.push_back(plugin_of(root));
        }
        if (network.name.empty() || network.plugins.empty()) {
            return invalid_argument("CNI configuration: name or plugins: empty");
        }
        return network;
    } catch (const std::exception& e) {
        return invalid_argument(std::string("CNI configuration: ") + e.what());
    }
}

Result<std::optional<CniNetwork>> load_cni_network(const std::string& directory) {
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(directory.c_str()), closedir);
    if (dir == nullptr) {
        if (errno == ENOENT) {
            return std::optional<CniNetwork>();
        }
        return Error::from_errno(errno, "open " + directory);
    }
    std::vector<std::string> names;
    while (const dirent* entry = readdir(dir.get())) {
        const std::string name = entry->d_name;
        for (const char* suffix : {".conflist", ".conf", ".json"}) {
            if (name.size() > strlen(suffix) && name.ends_with(suffix)) {
                names.push_back(name);
            }
        }
    }
    if (names.empty()) {
        return std::optional<CniNetwork>();
    }
    const std::string path = directory + "/" + *std::min_element(names.begin(), names.end());
    const std::string text = TRY(read_file(path, 1 << 20));
    return std::optional<CniNetwork>(TRY_STEP(path, parse_cni_network(text)));
}

Result<CniResult> parse_cni_result(const std::string& text) {
    try {
        const json root = json::parse(text);
        CniResult result;
        const json interfaces = root.value("interfaces", json::array());
        for (const json& ip : root.value("ips", json::array())) {
            // An address may name its interface; those on the host's side are not the pod's.
            if (const auto it = ip.find("interface"); it != ip.end() && it->is_number_unsigned()) {
                const auto index = it->get<size_t>();
                if (index < interfaces.size() && interfaces[index].value("sandbox", "").empty()) {
                    continue;
                }
            }
            const std::string address = ip.at("address");
            result.ips.push_back(address.substr(0, address.find('/')));
        }
        // Results before 0.3.0 have one address of each family.
        for (const char* family : {"ip4", "ip6"}) {
            if (const auto it = root.find(family); it != root.end() && it->is_object()) {
                const std::string address = it->at("ip");
                result.ips.push_back(address.substr(0, address.find('/')));
            }
        }
        return result;
    } catch (const json::exception& e) {
        return invalid_argument(std::string("CNI result: ") + e.what());
    }
}

}  // namespace moat::cri
