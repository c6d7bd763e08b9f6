#pragma once

#include <string>
#include <vector>

#include "cri/cni/config.h"

namespace moat::cri {

struct PortMapping {
    std::string protocol;  ///< tcp, udp, sctp
    int host_port = 0;
    int container_port = 0;
    std::string host_ip;
};

/// The pod a CNI call is about.
struct CniPod {
    std::string id;
    std::string name;
    std::string name_space;
    std::string uid;
    std::string namespace_path;
    std::vector<PortMapping> ports;
};

/// Runs the plugins of `network` in order with CNI_COMMAND=ADD, each with the result of the one
/// before it, and returns the last result's JSON. After an error DEL has been run for the whole
/// list.
Result<std::string> cni_add(const CniNetwork& network, const std::string& bin_directory,
                            const CniPod& pod);
/// CHECK with the cached result; a list that disables it, or is older than CNI 0.4.0, is a success.
Status cni_check(const CniNetwork& network, const std::string& bin_directory, const CniPod& pod,
                 const std::string& result);
/// DEL in reverse order. `result` may be empty. May be repeated.
Status cni_delete(const CniNetwork& network, const std::string& bin_directory, const CniPod& pod,
                  const std::string& result);

}  // namespace moat::cri
