#pragma once

#include <string>
#include <vector>

#include "cri/base/error.h"
#include "cri/cni/port_mapping.h"

namespace moat::cri {

/// What the node's netfilter does for the built-in network: host ports lead to pods, and what pods
/// send beyond their range bears the node's address.
struct NodeRules {
    struct Port {
        std::string pod_ip;
        PortMapping mapping;
    };
    std::vector<Port> ports;
    std::vector<std::string> ranges;  ///< translated; "10.213.0.0/16"
};

/// The nft(8) script that puts `rules` in the place of all that table `table` had, in one
/// transaction. An empty `rules` only removes the table.
std::string nft_script(const NodeRules& rules, const std::string& table);
/// The table of a moatd with this root: others on the node are not touched.
std::string nft_table(const std::string& root);

/// Runs the script. ENOENT: the node has no nft.
Status apply_rules(const NodeRules& rules, const std::string& table);

}  // namespace moat::cri
