#include "kernel/net/unix/unix_socket.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "kernel/net/inet/interfaces.h"
#include "kernel/net/unix/names.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"

namespace moat::kernel {

UnixSocket::UnixSocket(RefPtr<UnixEndpoint> end, uint32_t flags)
    : Socket(AF_UNIX, end->type(), 0, flags), end_(std::move(end)) {}

UnixSocket::~UnixSocket() { end_->close(); }

namespace {

Result<int> check_type(int type, int protocol) {
    if (protocol != 0 && protocol != PF_UNIX) {
        return Errno(EPROTONOSUPPORT);
    }
    switch (type) {
        case SOCK_STREAM:
        case SOCK_DGRAM:
        case SOCK_SEQPACKET:
            return type;
        case SOCK_RAW:
            return SOCK_DGRAM;  // Linux: unix_create, a BSD relic
        default:
            return Errno(ESOCKTNOSUPPORT);
    }
}

}  // namespace

Result<RefPtr<Socket>> UnixSocket::make(Task&, int type, int protocol, uint32_t flags) {
    const int checked = TRY(check_type(type, protocol));
    return RefPtr<Socket>(make_ref<UnixSocket>(make_ref<UnixEndpoint>(checked), flags));
}

Result<std::pair<RefPtr<Socket>, RefPtr<Socket>>> UnixSocket::make_pair(Task& task, int type,
                                                                        int protocol,
                                                                        uint32_t flags) {
    const int checked = TRY(check_type(type, protocol));
    auto a = make_ref<UnixEndpoint>(checked);
    auto b = make_ref<UnixEndpoint>(checked);
    UnixEndpoint::pair(*a, *b, PeerCredentials::of(task));
    return std::pair<RefPtr<Socket>, RefPtr<Socket>>(make_ref<UnixSocket>(std::move(a), flags),
                                                     make_ref<UnixSocket>(std::move(b), flags));
}

Status UnixSocket::bind(Task& task, const SocketAddress& address) {
    return bind_unix_name(task, *end_, TRY(unix_name(address)));
}

Status UnixSocket::connect(Task& task, const SocketAddress& address) {
    if (end_->is_datagram() && address.size >= 2 && address.family() == AF_UNSPEC) {
        return end_->set_destination(nullptr);
    }
    const std::string name = TRY(unix_name(address));
    auto target = TRY(find_unix_name(task, name, end_->type()));
    if (end_->passes_credentials() && !end_->is_bound()) {
        TRY(bind_unix_name(task, *end_, ""));  // so that the receiver can answer (unix(7))
    }
    return end_->is_datagram() ? end_->set_destination(std::move(target))
                               : end_->connect_to(*target, PeerCredentials::of(task));
}

Status UnixSocket::finish_connect(Task&) { return {}; }  // never under way

Status UnixSocket::listen(Task& task, int backlog) {
    return end_->listen(backlog, PeerCredentials::of(task));
}

Result<RefPtr<Socket>> UnixSocket::accept(Task&, uint32_t flags) {
    return RefPtr<Socket>(make_ref<UnixSocket>(TRY(end_->accept()), flags));
}

Status UnixSocket::shutdown(Task&, int how) {
    if (how < SHUT_RD || how > SHUT_RDWR) {
        return Errno(EINVAL);
    }
    return end_->shutdown(static_cast<uint8_t>(how + 1));
}

Result<SocketAddress> UnixSocket::local_address(Task&) {
    return SocketAddress::of_unix(end_->name());
}

Result<SocketAddress> UnixSocket::peer_address(Task&) {
    return SocketAddress::of_unix(TRY(end_->peer_name()));
}

Result<size_t> UnixSocket::send(Task& task, SendRequest& request) {
    if ((request.flags & MSG_OOB) != 0) {
        return Errno(EOPNOTSUPP);
    }
    if (request.control != nullptr && !request.control->other.empty()) {
        return Errno(EINVAL);
    }
    RefPtr<UnixEndpoint> target;
    if (request.to != nullptr && end_->type() == SOCK_STREAM) {
        return Errno(end_->peer_name().ok() ? EISCONN : EOPNOTSUPP);
    }
    if (request.to != nullptr && end_->is_datagram()) {
        target = TRY(find_unix_name(task, TRY(unix_name(*request.to)), SOCK_DGRAM));
    }
    if (end_->is_datagram() && end_->passes_credentials() && !end_->is_bound()) {
        TRY(bind_unix_name(task, *end_, ""));
    }
    const PeerCredentials sender = request.control != nullptr && request.control->credentials
                                       ? *request.control->credentials
                                       : PeerCredentials::of(task);
    return end_->send(std::move(target), request, sender);
}

Result<size_t> UnixSocket::receive(Task&, ReceiveRequest& request) {
    return end_->receive(request);
}

Result<int64_t> UnixSocket::ioctl(Task& task, uint32_t command, uint64_t argument) {
    size_t value = 0;
    switch (command) {
        case FIONREAD:
            if (end_->is_listening()) {
                return Errno(EINVAL);
            }
            value = end_->readable_bytes();
            break;
        case SIOCOUTQ:
            value = end_->unread_by_peer();
            break;
        default:
            return is_interface_ioctl(command) ? interface_ioctl(task, -1, command, argument)
                                               : Errno(ENOTTY);
    }
    TRY(task.copy_out(UserPtr<int32_t>(argument), static_cast<int32_t>(value)));
    return 0;
}

Status UnixSocket::set_own_option(Task& task, int level, int name,
                                  const std::vector<uint8_t>& value) {
    if (level != SOL_SOCKET) {
        return Errno(EOPNOTSUPP);
    }
    const int32_t n = TRY(option_int(value));
    switch (name) {
        case SO_PASSCRED:
            end_->set_pass_credentials(n != 0);
            return {};
        case SO_SNDBUFFORCE:
            if (!task.has_capability(CAP_NET_ADMIN)) {
                return Errno(EPERM);
            }
            [[fallthrough]];
        case SO_SNDBUF: {
            // Doubled, as Linux does for its own bookkeeping, and shown doubled (socket(7)).
            const int64_t wanted = std::max<int64_t>(int64_t{n} * 2, UnixEndpoint::kSmallestBuffer);
            end_->set_send_buffer(
                std::min(static_cast<size_t>(wanted), UnixEndpoint::kLargestBuffer));
            return {};
        }
        case SO_RCVBUF:
        case SO_RCVBUFFORCE:  // what may be sent is the sender's limit: unix(7)
        case SO_REUSEADDR:
        case SO_REUSEPORT:
        case SO_KEEPALIVE:
        case SO_BROADCAST:
        case SO_DONTROUTE:
        case SO_OOBINLINE:
        case SO_LINGER:
        case SO_PRIORITY:
        case SO_RCVLOWAT: {
            const auto clamped =
                name == SO_RCVBUF || name == SO_RCVBUFFORCE
                    ? std::clamp<int64_t>(int64_t{n} * 2, 2304, UnixEndpoint::kLargestBuffer)
                    : int64_t{n};
            MutexLock lock(mu_);
            options_[name] = static_cast<int32_t>(clamped);
            return {};
        }
        default:
            return unsupported("setsockopt on a unix socket", ENOPROTOOPT);
    }
}

Result<std::vector<uint8_t>> UnixSocket::get_own_option(Task& task, int level, int name, size_t) {
    if (level != SOL_SOCKET) {
        return Errno(EOPNOTSUPP);
    }
    switch (name) {
        case SO_PASSCRED:
            return option_value(end_->passes_credentials() ? 1 : 0);
        case SO_PEERCRED: {
            const ucred who = end_->peer_credentials().seen_by(task);
            std::vector<uint8_t> bytes(sizeof who);
            memcpy(bytes.data(), &who, sizeof who);
            return bytes;
        }
        case SO_ERROR:
            return option_value(end_->take_error());
        case SO_ACCEPTCONN:
            return option_value(end_->is_listening() ? 1 : 0);
        case SO_SNDBUF:
            return option_value(static_cast<int32_t>(end_->send_buffer()));
        case SO_LINGER: {
            const std::vector<uint8_t> none(sizeof(linger), 0);
            return none;
        }
        case SO_RCVBUF:
        case SO_REUSEADDR:
        case SO_REUSEPORT:
        case SO_KEEPALIVE:
        case SO_BROADCAST:
        case SO_DONTROUTE:
        case SO_OOBINLINE:
        case SO_PRIORITY:
        case SO_RCVLOWAT: {
            MutexLock lock(mu_);
            const auto known = options_.find(name);
            if (known != options_.end()) {
                return option_value(known->second);
            }
            return option_value(name == SO_RCVBUF     ? UnixEndpoint::kDefaultBuffer
                                : name == SO_RCVLOWAT ? 1
                                                      : 0);
        }
        default:
            return unsupported("getsockopt on a unix socket", ENOPROTOOPT);
    }
}

}  // namespace moat::kernel
