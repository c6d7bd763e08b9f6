#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "cri/cni/config.h"
#include "cri/cni/port_mapping.h"

namespace moat::cri {

/// Bits a second, of the annotations kubernetes.io/ingress-bandwidth and egress-bandwidth; 0: no
/// limit.
struct Bandwidth {
    uint64_t ingress = 0;
    uint64_t egress = 0;
};
/// A Kubernetes quantity ("10M", "1.5Gi") from 1k to 1P, as kubelet bounds it. EINVAL.
Result<uint64_t> parse_bandwidth(const std::string& text);

/// The pod a CNI call is about. What a plugin has not declared as a capability does not reach it.
struct CniPod {
    std::string id;
    std::string name;
    std::string name_space;
    std::string uid;
    std::string namespace_path;
    std::vector<PortMapping> ports;
    Bandwidth bandwidth;
    CniDns dns;
    std::vector<std::string> ip_ranges;  ///< the node's pod CIDRs
    std::map<std::string, std::string> annotations;
    std::string cgroup_path;
};

/// Where plugins are and how long one call of one plugin may take; it is killed with its children
/// then.
struct CniPlugins {
    std::string directory;
    std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

/// Runs the plugins of `network` in order with CNI_COMMAND=ADD, each with the result of the one
/// before it, and returns the last result's JSON. After an error DEL has been run for the whole
/// list. Errors name verb and plugin.
Result<std::string> cni_add(const CniNetwork& network, const CniPlugins& plugins,
                            const CniPod& pod);
/// CHECK with the cached result; a list that disables it, or is older than CNI 0.4.0, is a success.
Status cni_check(const CniNetwork& network, const CniPlugins& plugins, const CniPod& pod,
                 const std::string& result);
/// DEL in reverse order, of every plugin even if one fails; the first error. `result` may be empty.
/// May be repeated.
Status cni_delete(const CniNetwork& network, const CniPlugins& plugins, const CniPod& pod,
                  const std::string& result);
/// STATUS (CNI 1.1): whether the plugins would serve an ADD; older lists are a success.
Status cni_status(const CniNetwork& network, const CniPlugins& plugins);
/// GC (CNI 1.1): the plugins free what belongs to none of `pods` (ids). Older lists, and those that
/// disable it, are a success.
Status cni_collect(const CniNetwork& network, const CniPlugins& plugins,
                   const std::vector<std::string>& pods);

}  // namespace moat::cri
