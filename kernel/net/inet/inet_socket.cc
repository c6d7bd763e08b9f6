#include "kernel/net/inet/inet_socket.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "kernel/net/inet/interfaces.h"
#include "kernel/net/inet/options.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

/// Which protocol a guest gets for what it asks, or why not.
Result<int> check_protocol(int domain, int type, int protocol) {
    const int ping = domain == AF_INET ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6};
    switch (type) {
        case SOCK_STREAM:
            if (protocol == 0 || protocol == IPPROTO_TCP) {
                return IPPROTO_TCP;
            }
            return Errno(EPROTONOSUPPORT);
        case SOCK_DGRAM:
            if (protocol == 0 || protocol == IPPROTO_UDP) {
                return IPPROTO_UDP;
            }
            if (protocol == ping) {
                return ping;
            }
            return Errno(EPROTONOSUPPORT);
        case SOCK_RAW:
            return unsupported("raw sockets", EPERM);
        default:
            return Errno(ESOCKTNOSUPPORT);
    }
}

}  // namespace

InetSocket::InetSocket(ScopedFd fd, int domain, int type, int protocol, uint32_t flags)
    : HostSocket(std::move(fd), domain, type, protocol, flags) {}

InetSocket::~InetSocket() = default;

Result<RefPtr<Socket>> InetSocket::make(Task&, int domain, int type, int protocol, uint32_t flags) {
    const int checked = TRY(check_protocol(domain, type, protocol));
    ScopedFd fd(TRY(host_result(::socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, checked))));
    return RefPtr<Socket>(make_ref<InetSocket>(std::move(fd), domain, type, checked, flags));
}

RefPtr<Socket> InetSocket::make_accepted(ScopedFd fd, uint32_t flags) {
    return make_ref<InetSocket>(std::move(fd), domain(), type(), protocol(), flags);
}

/// Only addresses of the family's own reach the host; AF_UNSPEC dissolves a connection.
Status InetSocket::check_address(const SocketAddress& address) const {
    if (address.size < sizeof(uint16_t)) {
        return Errno(EINVAL);
    }
    switch (address.family()) {
        case AF_UNSPEC:
        case AF_INET:
        case AF_INET6:
            return {};
        default:
            return Errno(EAFNOSUPPORT);
    }
}

Status InetSocket::bind(Task& task, const SocketAddress& address) {
    TRY(check_address(address));
    return HostSocket::bind(task, address);
}

Status InetSocket::connect(Task& task, const SocketAddress& address) {
    TRY(check_address(address));
    return HostSocket::connect(task, address);
}

Result<size_t> InetSocket::send(Task& task, SendRequest& request) {
    if (request.to != nullptr) {
        TRY(check_address(*request.to));
    }
    return HostSocket::send(task, request);
}

bool InetSocket::may_send_control(int level, int type) const {
    return is_inet_control(level, type);
}

Status InetSocket::set_own_option(Task&, int level, int name, const std::vector<uint8_t>& value) {
    if (level == SOL_SOCKET && name == SO_LINGER) {
        linger wanted{};
        if (value.size() < sizeof wanted) {
            return Errno(EINVAL);
        }
        memcpy(&wanted, value.data(), sizeof wanted);
        if (wanted.l_onoff != 0 && wanted.l_linger != 0) {
            // The host's close(2) would wait in a thread of the sentry's.
            (void)unsupported("SO_LINGER with a time: close does not wait", EINVAL);
            wanted.l_onoff = 0;
        }
        std::vector<uint8_t> bytes(sizeof wanted);
        memcpy(bytes.data(), &wanted, sizeof wanted);
        return set_host_option(level, name, bytes);
    }
    if (level == SOL_SOCKET && name == SO_MARK) {
        return Errno(EPERM);
    }
    if (level == SOL_SOCKET && name == SO_PASSCRED) {
        return {};  // accepted by Linux for every family, without effect here
    }
    const HostOption* const option = find_inet_option(level, name);
    if (option == nullptr || !option->can(OptionAccess::kSet)) {
        return unsupported("setsockopt on an inet socket", ENOPROTOOPT);
    }
    if (value.size() > option->largest) {
        // Linux reads an int from the start of longer values too.
        return set_host_option(
            level, name, {value.begin(), value.begin() + static_cast<ptrdiff_t>(option->largest)});
    }
    return set_host_option(level, name, value);
}

Result<std::vector<uint8_t>> InetSocket::get_own_option(Task&, int level, int name, size_t size) {
    if (level == SOL_SOCKET && name == SO_LINGER) {
        return get_host_option(level, name, std::min(size, sizeof(linger)));
    }
    const HostOption* const option = find_inet_option(level, name);
    if (option == nullptr || !option->can(OptionAccess::kGet)) {
        return unsupported("getsockopt on an inet socket", ENOPROTOOPT);
    }
    return get_host_option(level, name, std::min(size, option->largest));
}

Result<int64_t> InetSocket::ioctl(Task& task, uint32_t command, uint64_t argument) {
    switch (command) {
        case SIOCINQ:  // FIONREAD
        case SIOCOUTQ:
        case SIOCATMARK: {
            int value = 0;
            TRY(host_result(::ioctl(fd(), command, &value)));
            TRY(task.copy_out(UserPtr<int32_t>(argument), value));
            return 0;
        }
        default:
            return is_interface_ioctl(command) ? interface_ioctl(task, fd(), command, argument)
                                               : unsupported("ioctl on an inet socket", ENOTTY);
    }
}

}  // namespace moat::kernel
