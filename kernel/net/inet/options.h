#pragma once

#include <cstddef>
#include <cstdint>

namespace moat::kernel {

enum class OptionAccess : uint8_t { kGet = 1, kSet = 2, kBoth = 3 };

/// A socket option that goes to the host as it is.
struct HostOption {
    int level;
    int name;
    OptionAccess access;
    size_t largest;  ///< bytes; more is cut off for get and refused for set
    bool can(OptionAccess what) const {
        return (static_cast<uint8_t>(access) & static_cast<uint8_t>(what)) != 0;
    }
};

/// The row of the one list of what guests may do to inet sockets; null: refused.
const HostOption* find_inet_option(int level, int name);
/// Control messages that guests may send on inet sockets.
bool is_inet_control(int level, int type);

}  // namespace moat::kernel
