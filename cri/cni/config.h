#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cri/base/error.h"

namespace moat::cri {

/// A CNI network configuration list (CNI specification 1.0, section 1) as its plugins will get it.
struct CniNetwork {
    struct Plugin {
        std::string type;
        std::string config;          ///< its JSON object
        bool port_mappings = false;  ///< capabilities.portMappings
    };
    std::string name;
    std::string version;
    bool disable_check = false;
    std::vector<Plugin> plugins;
    std::string source;  ///< the list as text: what DEL needs, even when the file has changed
};

/// A conflist, or a conf of a single plugin, which is taken as a list of one. EINVAL names what is
/// missing.
Result<CniNetwork> parse_cni_network(const std::string& text);

/// The first file by name of *.conflist, *.conf, *.json in `directory`, as kubelet and everybody
/// else choose; nothing when there is none or no such directory.
Result<std::optional<CniNetwork>> load_cni_network(const std::string& directory);

/// What a pod needs of an ADD's result (section 5 of the specification).
struct CniResult {
    std::vector<std::string> ips;  ///< without prefix length; those of the sandbox's interfaces
};
Result<CniResult> parse_cni_result(const std::string& text);

}  // namespace moat::cri
