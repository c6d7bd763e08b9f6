#include "kernel/net/inet/host_socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <vector>

#include "kernel/base/log.h"
#include "kernel/syscalls/syscall.h"

namespace moat::kernel {

namespace {

// What one call moves at most; a stream's caller goes on with the rest, a datagram is never longer.
constexpr size_t kBounceSize = 256 * 1024;

/// Where bytes wait between the guest's memory and the host's socket, one for each thread of the
/// sentry.
uint8_t* bounce_buffer() {
    thread_local std::unique_ptr<uint8_t[]> buffer(new uint8_t[kBounceSize]);
    return buffer.get();
}

constexpr int kSendFlags = MSG_OOB | MSG_DONTROUTE | MSG_EOR | MSG_MORE | MSG_CONFIRM;
constexpr int kReceiveFlags = MSG_OOB | MSG_PEEK | MSG_TRUNC | MSG_ERRQUEUE;

Result<SocketAddress> address_by(int (*get)(int, sockaddr*, socklen_t*), int fd) {
    SocketAddress address;
    socklen_t size = sizeof address.bytes;
    if (get(fd, address.host(), &size) != 0) {
        return Errno(errno);
    }
    address.size = std::min<uint32_t>(size, sizeof address.bytes);
    return address;
}

std::vector<uint8_t> encode_control(const std::vector<ControlMessage>& messages) {
    size_t size = 0;
    for (const ControlMessage& m : messages) {
        size += CMSG_SPACE(m.data.size());
    }
    std::vector<uint8_t> buffer(size);
    size_t at = 0;
    for (const ControlMessage& m : messages) {
        cmsghdr header{};
        header.cmsg_len = CMSG_LEN(m.data.size());
        header.cmsg_level = m.level;
        header.cmsg_type = m.type;
        memcpy(buffer.data() + at, &header, sizeof header);
        memcpy(buffer.data() + at + CMSG_LEN(0), m.data.data(), m.data.size());
        at += CMSG_SPACE(m.data.size());
    }
    return buffer;
}

void decode_control(msghdr& header, std::vector<ControlMessage>& messages) {
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            continue;  // cannot come by these families
        }
        const auto* data = CMSG_DATA(c);
        messages.push_back(
            {c->cmsg_level, c->cmsg_type, {data, data + (c->cmsg_len - CMSG_LEN(0))}});
    }
}

}  // namespace

HostSocket::HostSocket(ScopedFd fd, int domain, int type, int protocol, uint32_t flags)
    : Socket(domain, type, protocol, flags), fd_(std::move(fd)) {}

HostSocket::~HostSocket() {
    if (watch_) {
        watch_->stop();
    }
}

WaitQueue* HostSocket::wait_queue() {
    MutexLock lock(mu_);
    if (!watch_) {
        Result<RefPtr<HostWatch>> watch = HostWatch::start(fd_.get());
        if (!watch.ok()) {
            LOG(kError, "net", "cannot watch a host socket: errno %d", watch.error().value());
            return &unwatched_;
        }
        watch_ = std::move(*watch);
    }
    return &watch_->queue();
}

Status HostSocket::bind(Task&, const SocketAddress& address) {
    TRY(host_result(::bind(fd_.get(), address.host(), address.size)));
    return {};
}

Status HostSocket::connect(Task&, const SocketAddress& address) {
    TRY(host_result(::connect(fd_.get(), address.host(), address.size)));
    return {};
}

Status HostSocket::finish_connect(Task&) {
    if ((poll_host(fd_.get()) & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) {
        return Errno(EINPROGRESS);
    }
    int error = 0;
    socklen_t size = sizeof error;
    TRY(host_result(::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size)));
    if (error != 0) {
        return Errno(error);
    }
    return {};
}

Status HostSocket::listen(Task&, int backlog) {
    TRY(host_result(::listen(fd_.get(), backlog)));
    return {};
}

Result<RefPtr<Socket>> HostSocket::accept(Task&, uint32_t flags) {
    const int fd =
        TRY(host_result(::accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)));
    return make_accepted(ScopedFd(fd), flags);
}

Status HostSocket::shutdown(Task&, int how) {
    TRY(host_result(::shutdown(fd_.get(), how)));
    return {};
}

Result<SocketAddress> HostSocket::local_address(Task&) {
    return address_by(::getsockname, fd_.get());
}

Result<SocketAddress> HostSocket::peer_address(Task&) {
    return address_by(::getpeername, fd_.get());
}

Result<size_t> HostSocket::send(Task&, SendRequest& request) {
    std::vector<uint8_t> control;
    if (request.control != nullptr && !request.control->empty()) {
        if (!request.control->files.empty() || request.control->credentials) {
            return Errno(EINVAL);
        }
        for (const ControlMessage& m : request.control->other) {
            if (!may_send_control(m.level, m.type)) {
                return unsupported("control message on a host socket", EINVAL);
            }
        }
        control = encode_control(request.control->other);
    }
    const size_t wanted = request.data.remaining();
    if (!is_stream() && wanted > kBounceSize) {
        return Errno(EMSGSIZE);
    }
    uint8_t* const buffer = bounce_buffer();
    const size_t size = std::min(wanted, kBounceSize);
    // From a copy: what the host does not take must still be there for the next attempt.
    IoBuffer cursor = request.data;
    if (size > 0 && TRY(cursor.take(buffer, size)) != size) {
        return Errno(EFAULT);
    }
    TRY(check_outgoing(buffer, size));
    iovec piece{buffer, size};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (request.to != nullptr) {
        message.msg_name = const_cast<uint8_t*>(request.to->bytes);
        message.msg_namelen = request.to->size;
    }
    if (!control.empty()) {
        message.msg_control = control.data();
        message.msg_controllen = control.size();
    }
    const ssize_t sent =
        ::sendmsg(fd_.get(), &message, (request.flags & kSendFlags) | MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
        return Errno(errno);
    }
    if (static_cast<size_t>(sent) == size) {
        request.data = std::move(cursor);
    } else {
        (void)request.data.take(buffer, static_cast<size_t>(sent));  // moves the cursor on
    }
    return static_cast<size_t>(sent);
}

Result<size_t> HostSocket::receive(Task&, ReceiveRequest& request) {
    uint8_t* const buffer = bounce_buffer();
    alignas(cmsghdr) uint8_t control[1024];
    iovec piece{buffer, std::min(request.data.remaining(), kBounceSize)};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_name = request.from.bytes;
    message.msg_namelen = sizeof request.from.bytes;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    // A datagram's or a netlink message's real length is always asked for: fewer bytes are copied.
    const ssize_t received =
        ::recvmsg(fd_.get(), &message, (request.flags & kReceiveFlags) | MSG_DONTWAIT);
    if (received < 0) {
        return Errno(errno);
    }
    const auto size = static_cast<size_t>(received);
    const size_t copied = std::min(size, piece.iov_len);
    const bool discards = is_stream() && (request.flags & MSG_TRUNC) != 0;
    if (copied > 0 && !discards && TRY(request.data.put(buffer, copied)) != copied) {
        return Errno(EFAULT);
    }
    request.from.size = std::min<uint32_t>(message.msg_namelen, sizeof request.from.bytes);
    request.message_flags = message.msg_flags;
    decode_control(message, request.control.other);
    return size;
}

Status HostSocket::set_host_option(int level, int name, const std::vector<uint8_t>& value) {
    TRY(host_result(
        ::setsockopt(fd_.get(), level, name, value.data(), static_cast<socklen_t>(value.size()))));
    return {};
}

Result<std::vector<uint8_t>> HostSocket::get_host_option(int level, int name, size_t size) {
    std::vector<uint8_t> value(std::min<size_t>(size, 4096));
    auto length = static_cast<socklen_t>(value.size());
    TRY(host_result(::getsockopt(fd_.get(), level, name, value.data(), &length)));
    value.resize(std::min<size_t>(length, value.size()));
    return value;
}

}  // namespace moat::kernel
