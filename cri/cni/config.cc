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
        for (const auto& [name, wanted] : it->items()) {
            if (wanted.is_boolean() && wanted.get<bool>()) {
                plugin.capabilities.push_back(name);
            }
        }
    }
    plugin.config = value.dump();
    return plugin;
}

/// Newest last.
constexpr std::string_view kVersions[] = {"0.1.0", "0.2.0", "0.3.0", "0.3.1",
                                          "0.4.0", "1.0.0", "1.1.0"};

/// Of what the list offers (cniVersions since 1.1, else its one cniVersion) the newest we speak.
std::string choose_version(const json& root) {
    std::vector<std::string> offered = {root.value("cniVersion", "0.1.0")};
    if (const auto it = root.find("cniVersions"); it != root.end()) {
        const auto more = it->get<std::vector<std::string>>();
        offered.insert(offered.end(), more.begin(), more.end());
    }
    std::string all;
    for (const std::string& version : offered) {
        all += (all.empty() ? "" : ", ") + version;
    }
    const auto* best = std::find_if(std::rbegin(kVersions), std::rend(kVersions), [&](auto known) {
                           return std::find(offered.begin(), offered.end(), known) != offered.end();
                       }).base();
    if (best == std::begin(kVersions)) {
        throw std::invalid_argument("cniVersion: " + all + ": we speak 0.1.0 to 1.1.0");
    }
    return std::string(best[-1]);
}

/// Lists of strings and strings; what is missing is empty.
void add_words(std::vector<std::string>& words, const json& object, const char* key) {
    const auto it = object.find(key);
    if (it == object.end() || it->is_null()) {
        return;
    }
    if (it->is_string()) {
        if (!it->get<std::string>().empty()) {
            words.push_back(*it);
        }
        return;
    }
    const auto more = it->get<std::vector<std::string>>();
    words.insert(words.end(), more.begin(), more.end());
}

}  // namespace

bool CniNetwork::Plugin::has(std::string_view capability) const {
    return std::find(capabilities.begin(), capabilities.end(), capability) != capabilities.end();
}

bool CniNetwork::at_least(int major, int minor) const {
    int has_major = 0;
    int has_minor = 0;
    sscanf(version.c_str(), "%d.%d", &has_major, &has_minor);
    return has_major > major || (has_major == major && has_minor >= minor);
}

Result<CniNetwork> parse_cni_network(const std::string& text) {
    try {
        const json root = json::parse(text);
        CniNetwork network;
        network.source = text;
        network.name = root.at("name").get<std::string>();
        network.version = choose_version(root);
        if (const auto it = root.find("plugins"); it != root.end()) {
            network.disable_check = root.value("disableCheck", false);
            network.disable_gc = root.value("disableGC", false);
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
        if (const auto dns = root.find("dns"); dns != root.end() && dns->is_object()) {
            add_words(result.dns.servers, *dns, "nameservers");
            add_words(result.dns.searches, *dns, "domain");
            add_words(result.dns.searches, *dns, "search");
            add_words(result.dns.options, *dns, "options");
        }
        return result;
    } catch (const json::exception& e) {
        return invalid_argument(std::string("CNI result: ") + e.what());
    }
}

}  // namespace moat::cri
