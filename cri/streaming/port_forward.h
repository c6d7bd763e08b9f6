#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <string>

#include "cri/streaming/http_server.h"

namespace moat::cri::streaming {

/// Serves a port-forward until its client has gone. Each connection of the client's is one to
/// localhost, IPv4 first, then IPv6, in the network namespace at `network_namespace`.
void run_port_forward(Client client, std::string pod_id, std::string network_namespace,
                      std::vector<int32_t> ports, std::function<void()> finished);

}  // namespace moat::cri::streaming
