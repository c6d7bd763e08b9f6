#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cri/base/error.h"

namespace moat::cri {

/// A CNI network configuration list (CNI specification 1.1, section 1) as its plugins will get it.
struct CniNetwork {
    struct Plugin {
        std::string type;
        std::string config;                     ///< its JSON object
        std::vector<std::string> capabilities;  ///< those that are true
        bool has(std::string_view capability) const;
    };
    std::string name;
    std::string version;  ///< of cniVersion and cniVersions, the newest that we speak
    bool disable_check = false;
    bool disable_gc = false;
    /// Whether the version is major.minor or newer.
    bool at_least(int major, int minor) const;
    std::vector<Plugin> plugins;
    std::string source;  ///< the list as text: what DEL needs, even when the file has changed
};

/// A conflist, or a conf of a single plugin, which is taken as a list of one. Versions from 0.1.0
/// to 1.1.0. EINVAL names what is missing.
Result<CniNetwork> parse_cni_network(const std::string& text);

/// The first file by name of *.conflist, *.conf, *.json in `directory`, as kubelet and everybody
/// else choose; nothing when there is none or no such directory.
Result<std::optional<CniNetwork>> load_cni_network(const std::string& directory);

/// What a pod needs of an ADD's result (section 5 of the specification).
struct CniDns {
    std::vector<std::string> servers;
    std::vector<std::string> searches;  ///< a result's domain comes first
    std::vector<std::string> options;
    bool empty() const { return servers.empty() && searches.empty() && options.empty(); }
};
struct CniResult {
    CniDns dns;
    std::vector<std::string> ips;  ///< without prefix length; those of the sandbox's interfaces
};
Result<CniResult> parse_cni_result(const std::string& text);

}  // namespace moat::cri
