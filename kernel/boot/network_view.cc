#include "kernel/boot/network_view.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "kernel/base/scoped_fd.h"
#include "kernel/fs/proc/net.h"
#include "kernel/fs/sys/sysfs.h"

namespace moat::kernel {

namespace {

constexpr size_t kMostText = 4 << 20;

/// Tables of the network namespace that hold nothing of the sentry's or the machine's, and how many
/// lines of headings they begin with (the guest's /proc has its own). Not "unix" and "netlink":
/// those sockets are the sandbox's, not the host's.
constexpr struct {
    const char* name;
    int headings;
} kTables[] = {
    {"tcp", 1},      {"tcp6", 1},      {"udp", 1},      {"udp6", 1},       {"raw", 1},
    {"dev", 2},      {"route", 1},     {"if_inet6", 0}, {"ipv6_route", 0}, {"arp", 1},
    {"sockstat", 1}, {"sockstat6", 0}, {"snmp", 0},     {"netstat", 0},
};

/// Empty where the host does not have it (IPv6 off).
std::string read_table(const std::string& path, int headings) {
    const ScopedFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::string text;
    char chunk[16384];
    while (file && text.size() < kMostText) {
        const ssize_t n = ::read(file.get(), chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        text.append(chunk, static_cast<size_t>(n));
    }
    for (; headings > 0; headings--) {
        const size_t end = text.find('\n');
        text.erase(0, end == std::string::npos ? end : end + 1);
    }
    return text;
}

std::string hardware_address(const sockaddr& address) {
    char text[18];
    const auto* bytes = reinterpret_cast<const unsigned char*>(address.sa_data);
    snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1], bytes[2],
             bytes[3], bytes[4], bytes[5]);
    return text;
}

std::vector<NetworkInterface> list_interfaces() {
    std::vector<NetworkInterface> all;
    const ScopedFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    struct if_nameindex* const names = if_nameindex();
    for (const auto* one = names; socket && one != nullptr && one->if_index != 0; one++) {
        NetworkInterface interface;
        interface.name = one->if_name;
        interface.index = one->if_index;
        ifreq request{};
        memcpy(request.ifr_name, one->if_name, strnlen(one->if_name, IFNAMSIZ - 1));
        if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) == 0) {
            interface.flags = static_cast<uint16_t>(request.ifr_flags);
        }
        if (::ioctl(socket.get(), SIOCGIFMTU, &request) == 0) {
            interface.mtu = static_cast<uint32_t>(request.ifr_mtu);
        }
        if (::ioctl(socket.get(), SIOCGIFHWADDR, &request) == 0) {
            interface.address = hardware_address(request.ifr_hwaddr);
        }
        interface.loopback = (interface.flags & IFF_LOOPBACK) != 0;
        all.push_back(std::move(interface));
    }
    if (names != nullptr) {
        if_freenameindex(names);
    }
    return all;
}

}  // namespace

void set_up_network_view() {
    for (const auto& table : kTables) {
        set_proc_net_source(table.name,
                            [path = std::string("/proc/self/net/") + table.name,
                             headings = table.headings] { return read_table(path, headings); });
    }
    set_sysfs_interfaces(list_interfaces());
}

}  // namespace moat::kernel
