#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace moat::kernel {

/// A socket address as a guest gave it or gets it: at most sizeof(sockaddr_storage) bytes.
struct SocketAddress {
    alignas(8) uint8_t bytes[sizeof(sockaddr_storage)] = {};
    uint32_t size = 0;

    bool empty() const { return size == 0; }
    uint16_t family() const {
        uint16_t f = AF_UNSPEC;
        if (size >= sizeof f) {
            memcpy(&f, bytes, sizeof f);
        }
        return f;
    }
    sockaddr* host() { return reinterpret_cast<sockaddr*>(bytes); }
    const sockaddr* host() const { return reinterpret_cast<const sockaddr*>(bytes); }

    static SocketAddress of_family(uint16_t family) {
        SocketAddress a;
        memcpy(a.bytes, &family, sizeof family);
        a.size = sizeof family;
        return a;
    }
    /// A unix socket's: `name` is a path without its NUL, or starts with a NUL if it is abstract.
    static SocketAddress of_unix(std::string_view name) {
        SocketAddress a = of_family(AF_UNIX);
        if (!name.empty()) {
            memcpy(a.bytes + 2, name.data(), std::min(name.size(), sizeof(sockaddr_un::sun_path)));
            a.size = static_cast<uint32_t>(2 + name.size() + (name[0] == '\0' ? 0 : 1));
        }
        return a;
    }
};

}  // namespace moat::kernel
