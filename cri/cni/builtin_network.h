#pragma once

#include <cstdint>
#include <string>

#include "cri/base/error.h"

namespace moat::cri {

class Database;

/// The network of a pod when the node has no CNI configuration: a veth pair, a /32 address of a
/// private range on eth0, the node at 169.254.1.1 as its gateway, and a route to the pod on the
/// node. Pods reach each other and the node; nothing is translated, so the world outside has to
/// route the range itself.
///
/// Addresses are rows of the table `addresses`. The interfaces go with the pod's namespace.
class BuiltinNetwork {
  public:
    explicit BuiltinNetwork(Database& database) : database_(database) {}

    /// "a.b.c.d/len"; what UpdateRuntimeConfig brings. EINVAL for a text that is no IPv4 range of 4
    /// to 65536 addresses. Pods that are there keep their addresses.
    Status set_range(const std::string& cidr);
    /// Returns the pod's address. After an error nothing is left of it.
    Result<std::string> add(const std::string& pod_id, const std::string& namespace_path);
    /// Frees the address. May be repeated.
    Status remove(const std::string& pod_id);

  private:
    Result<uint32_t> allocate(const std::string& pod_id);
    Database& database_;
};

/// First address and prefix length of "a.b.c.d/len"; the address is masked.
struct Ipv4Range {
    uint32_t base = 0;
    uint8_t prefix = 0;
};
Result<Ipv4Range> parse_ipv4_range(const std::string& cidr);
std::string ipv4_text(uint32_t address);

}  // namespace moat::cri
