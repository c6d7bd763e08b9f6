#pragma once

#include <string>

namespace moat::cri {

/// A host port that leads to a pod's port.
struct PortMapping {
    std::string protocol;  ///< tcp, udp, sctp
    int host_port = 0;
    int container_port = 0;
    std::string host_ip;  ///< empty: every address of the node
};

}  // namespace moat::cri
