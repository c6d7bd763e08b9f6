#pragma once

#include <functional>
#include <string>

namespace moat::kernel {

/// Makes `lines` the source of the lines below the header of /proc/net/`name`: "tcp", "udp",
/// "unix", "dev", "route", ... Called for each read, with no lock held. At boot, by the socket
/// layer.
void set_proc_net_source(std::string name, std::function<std::string()> lines);

}  // namespace moat::kernel
