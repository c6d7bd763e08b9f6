#include "kernel/net/inet/netlink_socket.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <algorithm>

#include "kernel/net/inet/interfaces.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr int kNetlinkLevel = 270;  // SOL_NETLINK

/// To the kernel only: port 0 and no group.
Status check_destination(const SocketAddress& address) {
    sockaddr_nl to{};
    if (address.size < sizeof to || address.family() != AF_NETLINK) {
        return Errno(EINVAL);
    }
    memcpy(&to, address.bytes, sizeof to);
    if (to.nl_pid != 0 || to.nl_groups != 0) {
        return Errno(EPERM);
    }
    return {};
}

}  // namespace

Status check_netlink_requests(const uint8_t* data, size_t size) {
    size_t at = 0;
    while (size - at >= sizeof(nlmsghdr)) {
        nlmsghdr header;
        memcpy(&header, data + at, sizeof header);
        if (header.nlmsg_len < sizeof header || header.nlmsg_len > size - at) {
            return Errno(EINVAL);
        }
        switch (header.nlmsg_type) {
            case NLMSG_NOOP:
            case NLMSG_DONE:
            case RTM_GETLINK:
            case RTM_GETADDR:
            case RTM_GETROUTE:
            case RTM_GETNEIGH:
            case RTM_GETRULE:
            case RTM_GETNEIGHTBL:
            case RTM_GETNETCONF:
            case RTM_GETSTATS:
                break;
            default:
                return unsupported("netlink request that changes something", EPERM);
        }
        const size_t step = NLMSG_ALIGN(header.nlmsg_len);
        if (step >= size - at) {
            return {};
        }
        at += step;
    }
    return {};
}

NetlinkSocket::NetlinkSocket(ScopedFd fd, int type, uint32_t flags)
    : HostSocket(std::move(fd), AF_NETLINK, type, NETLINK_ROUTE, flags) {}

NetlinkSocket::~NetlinkSocket() = default;

Result<RefPtr<Socket>> NetlinkSocket::make(Task&, int type, int protocol, uint32_t flags) {
    if (type != SOCK_RAW && type != SOCK_DGRAM) {
        return Errno(ESOCKTNOSUPPORT);
    }
    if (protocol != NETLINK_ROUTE) {
        return unsupported("netlink protocols but NETLINK_ROUTE", EPROTONOSUPPORT);
    }
    ScopedFd fd(
        TRY(host_result(::socket(AF_NETLINK, type | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE))));
    return RefPtr<Socket>(make_ref<NetlinkSocket>(std::move(fd), type, flags));
}

RefPtr<Socket> NetlinkSocket::make_accepted(ScopedFd fd, uint32_t flags) {
    return make_ref<NetlinkSocket>(std::move(fd), type(), flags);  // accept(2) never gets here
}

Status NetlinkSocket::bind(Task& task, const SocketAddress& address) {
    if (address.size < sizeof(sockaddr_nl) || address.family() != AF_NETLINK) {
        return Errno(EINVAL);
    }
    return HostSocket::bind(task, address);
}

Status NetlinkSocket::connect(Task& task, const SocketAddress& address) {
    TRY(check_destination(address));
    return HostSocket::connect(task, address);
}

Status NetlinkSocket::listen(Task&, int) { return Errno(EOPNOTSUPP); }

Result<size_t> NetlinkSocket::send(Task& task, SendRequest& request) {
    if (request.to != nullptr) {
        TRY(check_destination(*request.to));
    }
    return HostSocket::send(task, request);
}

Status NetlinkSocket::check_outgoing(const uint8_t* data, size_t size) const {
    return check_netlink_requests(data, size);
}

Result<int64_t> NetlinkSocket::ioctl(Task& task, uint32_t command, uint64_t argument) {
    return is_interface_ioctl(command) ? interface_ioctl(task, -1, command, argument)
                                       : Errno(ENOTTY);
}

Status NetlinkSocket::set_own_option(Task&, int level, int name,
                                     const std::vector<uint8_t>& value) {
    if (level == SOL_SOCKET && (name == SO_RCVBUF || name == SO_SNDBUF)) {
        return set_host_option(level, name, option_value(TRY(option_int(value))));
    }
    if (level == SOL_SOCKET && name == SO_PASSCRED) {
        return {};
    }
    if (level == kNetlinkLevel) {
        switch (name) {
            case NETLINK_ADD_MEMBERSHIP:
            case NETLINK_DROP_MEMBERSHIP:
            case NETLINK_PKTINFO:
            case NETLINK_NO_ENOBUFS:
            case NETLINK_EXT_ACK:
            case NETLINK_CAP_ACK:
            case NETLINK_GET_STRICT_CHK:
                return set_host_option(level, name, option_value(TRY(option_int(value))));
            default:
                break;
        }
    }
    return unsupported("setsockopt on a netlink socket", ENOPROTOOPT);
}

Result<std::vector<uint8_t>> NetlinkSocket::get_own_option(Task&, int level, int name,
                                                           size_t size) {
    if (level == SOL_SOCKET && (name == SO_RCVBUF || name == SO_SNDBUF || name == SO_ERROR)) {
        return get_host_option(level, name, std::min(size, sizeof(int)));
    }
    return unsupported("getsockopt on a netlink socket", ENOPROTOOPT);
}

}  // namespace moat::kernel
