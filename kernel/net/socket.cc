#include "kernel/net/socket.h"

#include <fcntl.h>
#include <linux/capability.h>

#include "kernel/fs/pipe/anonymous.h"
#include "kernel/net/inet/inet_socket.h"
#include "kernel/net/inet/netlink_socket.h"
#include "kernel/net/unix/unix_socket.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"
#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

PeerCredentials PeerCredentials::of(Task& task) {
    const CredentialsRef who = task.credentials();
    return {task.pid(), who->euid, who->egid, &task.pid_namespace()};
}

ucred PeerCredentials::seen_by(Task& task) const {
    return {pids == &task.pid_namespace() ? pid : 0, uid, gid};
}

Socket::Socket(int domain, int type, int protocol, uint32_t flags)
    : File(O_RDWR | flags),
      domain_(domain),
      type_(type),
      protocol_(protocol),
      ino_(next_anonymous_inode()) {}

Socket::~Socket() = default;

std::string Socket::anonymous_name() const { return "socket:[" + std::to_string(ino_) + "]"; }

Result<struct stat> Socket::stat(Task&) { return anonymous_stat(ino_, S_IFSOCK | 0777, 0, 0); }

Result<size_t> Socket::read(Task& task, IoBuffer& destination) {
    ReceiveRequest request{destination};
    return receive(task, request);
}

Result<size_t> Socket::write(Task& task, IoBuffer& source) {
    SendRequest request{source};
    return send(task, request);
}

Deadline Socket::deadline(const std::atomic<int64_t>& timeout_ns) {
    const int64_t ns = timeout_ns.load(std::memory_order_relaxed);
    return ns == 0 ? Deadline::never() : Deadline::at(add_saturating(monotonic_ns(), ns));
}

Result<int32_t> Socket::option_int(const std::vector<uint8_t>& value) {
    int32_t n = 0;
    if (value.size() < sizeof n) {
        return Errno(EINVAL);
    }
    memcpy(&n, value.data(), sizeof n);
    return n;
}

std::vector<uint8_t> Socket::option_value(int32_t value) {
    std::vector<uint8_t> bytes(sizeof value);
    memcpy(bytes.data(), &value, sizeof value);
    return bytes;
}

Status Socket::set_option(Task& task, int level, int name, const std::vector<uint8_t>& value) {
    if (level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO)) {
        timeval t{};
        if (value.size() < sizeof t) {
            return Errno(EINVAL);
        }
        memcpy(&t, value.data(), sizeof t);
        if (t.tv_usec < 0 || t.tv_usec >= 1'000'000) {
            return Errno(EDOM);
        }
        // A negative time means "do not wait" (Linux: sock_set_timeout): as short as can be.
        const int64_t ns = t.tv_sec < 0 ? 1 : to_ns(timespec{t.tv_sec, t.tv_usec * 1000});
        (name == SO_RCVTIMEO ? receive_timeout_ns_ : send_timeout_ns_)
            .store(ns, std::memory_order_relaxed);
        return {};
    }
    return set_own_option(task, level, name, value);
}

Result<std::vector<uint8_t>> Socket::get_option(Task& task, int level, int name, size_t size) {
    if (level == SOL_SOCKET) {
        switch (name) {
            case SO_DOMAIN:
                return option_value(domain_);
            case SO_TYPE:
                return option_value(type_);
            case SO_PROTOCOL:
                return option_value(protocol_);
            case SO_RCVTIMEO:
            case SO_SNDTIMEO: {
                const int64_t ns = (name == SO_RCVTIMEO ? receive_timeout_ns_ : send_timeout_ns_)
                                       .load(std::memory_order_relaxed);
                const timeval t{ns / 1'000'000'000, ns % 1'000'000'000 / 1000};
                std::vector<uint8_t> bytes(sizeof t);
                memcpy(bytes.data(), &t, sizeof t);
                return bytes;
            }
            default:
                break;
        }
    }
    return get_own_option(task, level, name, size);
}

Result<RefPtr<Socket>> make_socket(Task& task, int domain, int type, int protocol, uint32_t flags) {
    switch (domain) {
        case AF_UNIX:
            return UnixSocket::make(task, type, protocol, flags);
        case AF_INET:
        case AF_INET6:
            return InetSocket::make(task, domain, type, protocol, flags);
        case AF_NETLINK:
            return NetlinkSocket::make(task, type, protocol, flags);
        case AF_PACKET:
            return unsupported("packet sockets", EPERM);
        default:
            return Errno(EAFNOSUPPORT);
    }
}

}  // namespace moat::kernel
