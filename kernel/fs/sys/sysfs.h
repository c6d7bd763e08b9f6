#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moat::kernel {

/// Registers "sysfs". At boot.
void register_sysfs();

struct NetworkInterface {
    std::string name;
    std::string address;  ///< "00:00:00:00:00:00"
    uint32_t index = 0;
    uint32_t mtu = 0;
    uint32_t flags = 0;  ///< IFF_*
    bool loopback = false;
};
/// What /sys/class/net shows in instances mounted from now on. By the network layer.
void set_sysfs_interfaces(std::vector<NetworkInterface> all);

}  // namespace moat::kernel
