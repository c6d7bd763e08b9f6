#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "cri/base/error.h"
#include "cri/cni/node_rules.h"

namespace moat::cri {

class Database;

/// The network of a pod when the node has no CNI configuration: a veth pair, a /32 address of a
/// private range on eth0, the node at 169.254.1.1 as its gateway, and a route to the pod on the
/// node. Pods reach each other and the node; host ports and the way out are netfilter rules
/// (node_rules.h), the latter where the node forwards at all.
///
/// Addresses and host ports are rows of the database. The interfaces go with the pod's namespace;
/// the rules are made of the rows, all at once, so they cannot differ from them for long.
class BuiltinNetwork {
  public:
    /// `masquerade`: what pods send beyond their range bears the node's address. `root` names the
    /// netfilter table.
    BuiltinNetwork(Database& database, const std::string& root, bool masquerade)
        : database_(database), table_(nft_table(root)), masquerade_(masquerade) {}

    /// Frees what belongs to none of `pods`, whose makers were killed, and makes the rules anew.
    Status recover(const std::vector<std::string>& pods);

    /// "a.b.c.d/len"; what UpdateRuntimeConfig brings. EINVAL for a text that is no IPv4 range of 4
    /// to 65536 addresses. Pods that are there keep their addresses.
    Status set_range(const std::string& cidr);
    /// All of UpdateRuntimeConfig's, IPv6 too; for node_ranges().
    Status set_node_ranges(const std::string& cidrs);
    /// Returns the pod's address. After an error nothing is left of it. EBUSY: another pod has one
    /// of the host ports.
    Result<std::string> add(const std::string& pod_id, const std::string& namespace_path,
                            const std::vector<PortMapping>& ports);
    /// Frees the address and the host ports. May be repeated.
    Status remove(const std::string& pod_id);

    /// What UpdateRuntimeConfig brought, for plugins that take their ranges from the runtime; empty
    /// when nothing came.
    Result<std::vector<std::string>> node_ranges();

  private:
    Result<std::string> range();
    Result<uint32_t> allocate(const std::string& pod_id);
    Status reserve(const std::string& pod_id, const std::vector<PortMapping>& ports);
    Result<std::string> connect(const std::string& pod_id, const std::string& namespace_path,
                                const std::vector<PortMapping>& ports);
    Status write_rules();
    Database& database_;
    const std::string table_;
    const bool masquerade_;
    std::mutex rules_mu_;  ///< one script at a time, and in the order of the rows
    bool rules_written_ = false;
};

/// First address and prefix length of "a.b.c.d/len"; the address is masked.
struct Ipv4Range {
    uint32_t base = 0;
    uint8_t prefix = 0;
};
Result<Ipv4Range> parse_ipv4_range(const std::string& cidr);
std::string ipv4_text(uint32_t address);

}  // namespace moat::cri
