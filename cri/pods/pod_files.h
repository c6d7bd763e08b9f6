#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cri/base/error.h"
#include "cri/cni/config.h"

namespace runtime::v1 {
class PodSandboxConfig;
}

namespace moat::cri {

namespace api = ::runtime::v1;

/// The pod's host name as its guests see it: what the request says, else the node's for a pod in
/// the node's network.
std::string pod_hostname(const api::PodSandboxConfig& config, const std::string& pod_id);

/// Writes hosts, hostname and resolv.conf and makes shm in `directory`, from which containers mount
/// them.
Status write_pod_files(const std::string& directory, const api::PodSandboxConfig& config,
                       const std::string& hostname, const std::vector<std::string>& ips,
                       bool node_network, const CniDns& network_dns);

/// Gives them to the node's ids that are root in the pod's user namespace.
Status give_pod_files(const std::string& directory, uint32_t uid, uint32_t gid);

/// resolv.conf(5) from a DNSConfig, else from what the pod's network says, else the node's. EINVAL
/// for a value that would break out of its line.
Result<std::string> resolv_conf(const api::PodSandboxConfig& config, const CniDns& network_dns);

}  // namespace moat::cri
