// Sockets: making, naming, connecting, options. Messages are in sys_message.cc.

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>

#include "kernel/net/unix/unix_socket.h"
#include "kernel/syscalls/handlers_io.h"
#include "kernel/syscalls/socket_common.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/block.h"

namespace moat::kernel {

namespace {

constexpr int kMaxOption = 4096;

/// The type argument of socket(2), taken apart.
struct TypeAndFlags {
    int type;
    uint32_t file_flags;
    CloseOnExec cloexec;

    static Result<TypeAndFlags> from(int raw) {
        const int flags = raw & ~0xf;
        if ((flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0) {
            return Errno(EINVAL);
        }
        return TypeAndFlags{raw & 0xf, static_cast<uint32_t>(flags & SOCK_NONBLOCK),
                            (flags & SOCK_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo};
    }
};
static_assert(SOCK_NONBLOCK == O_NONBLOCK);

class AcceptCall final : public SocketCall {
  public:
    using SocketCall::SocketCall;
    UserPtr<uint8_t> address;
    UserPtr<int32_t> size;
    uint32_t file_flags = 0;
    CloseOnExec cloexec = CloseOnExec::kNo;

    Result<int64_t> step(Task& task) override {
        // First: a connection that was taken and got no number would be lost.
        FdReservation number = TRY(task.fds().reserve(task.rlimit(RLIMIT_NOFILE)));
        const auto accepted = TRY(socket->accept(task, file_flags));
        if (address) {
            const Result<SocketAddress> peer = accepted->peer_address(task);
            if (!peer.ok()) {
                return Errno(ECONNABORTED);  // gone again (Linux: inet_accept's getname)
            }
            TRY(copy_out_address(task, *peer, address, size));
        }
        return to_integer(std::move(number).install(accepted, cloexec));
    }
};

/// connect(2) once it has to wait: for the host to finish, or for room in a unix listener's
/// backlog.
class ConnectCall final : public SocketCall {
  public:
    using SocketCall::SocketCall;
    SocketAddress address;
    bool is_started = false;

    Result<int64_t> step(Task& task) override {
        Status status = is_started ? socket->finish_connect(task) : socket->connect(task, address);
        if (!status.ok()) {
            const Errno error = status.error();
            // EALREADY: a connect(2) that a signal interrupted goes on when it is restarted.
            if (error == EINPROGRESS || (error == EALREADY && may_wait)) {
                is_started = true;
                return may_wait ? Errno(EAGAIN) : Errno(EINPROGRESS);
            }
            return error;
        }
        return 0;
    }
    Result<int64_t> give_up(Task&, Errno error) override {
        return is_started && error == EAGAIN ? Errno(EINPROGRESS) : error;
    }
};

}  // namespace

Result<Fd> sys_socket(Task& task, int domain, int type, int protocol) {
    const auto [kind, flags, cloexec] = TRY(TypeAndFlags::from(type));
    auto socket = TRY(make_socket(task, domain, kind, protocol, flags));
    return task.fds().install(std::move(socket), cloexec, task.rlimit(RLIMIT_NOFILE));
}

Status sys_socketpair(Task& task, int domain, int type, int protocol, UserPtr<int32_t> fds) {
    const auto [kind, flags, cloexec] = TRY(TypeAndFlags::from(type));
    if (domain != AF_UNIX) {
        return Errno(domain == AF_INET || domain == AF_INET6 ? EOPNOTSUPP : EAFNOSUPPORT);
    }
    auto [a, b] = TRY(UnixSocket::make_pair(task, kind, protocol, flags));
    const auto [first, second] = TRY(
        task.fds().install_pair(std::move(a), std::move(b), cloexec, task.rlimit(RLIMIT_NOFILE)));
    const int32_t numbers[2] = {to_integer(first), to_integer(second)};
    const Status copied = task.copy_out_bytes(fds.address(), numbers, sizeof numbers);
    if (!copied.ok()) {
        (void)task.fds().remove(first);
        (void)task.fds().remove(second);
    }
    return copied;
}

Status sys_bind(Task& task, Fd fd, UserPtr<const uint8_t> address, int size) {
    const auto socket = TRY(get_socket(task, fd));
    return socket->bind(task, TRY(copy_in_address(task, address, size)));
}

Status sys_listen(Task& task, Fd fd, int backlog) {
    return TRY(get_socket(task, fd))->listen(task, backlog);
}

Result<int64_t> sys_accept(Task& task, Fd fd, UserPtr<uint8_t> address, UserPtr<int32_t> size) {
    return sys_accept4(task, fd, address, size, 0);
}

Result<int64_t> sys_accept4(Task& task, Fd fd, UserPtr<uint8_t> address, UserPtr<int32_t> size,
                            uint32_t flags) {
    if ((flags & ~static_cast<uint32_t>(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0) {
        return Errno(EINVAL);
    }
    auto call = std::make_shared<AcceptCall>(TRY(get_socket(task, fd)));
    if (call->socket->type() == SOCK_DGRAM) {
        return Errno(EOPNOTSUPP);
    }
    call->address = address;
    call->size = size;
    call->file_flags = flags & SOCK_NONBLOCK;
    call->cloexec = (flags & SOCK_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo;
    call->may_wait = !call->socket->nonblocking();
    call->events = EPOLLIN;
    call->deadline = call->socket->receive_deadline();
    return run_socket_call(task, std::move(call));
}

Result<int64_t> sys_connect(Task& task, Fd fd, UserPtr<const uint8_t> address, int size) {
    auto call = std::make_shared<ConnectCall>(TRY(get_socket(task, fd)));
    call->address = TRY(copy_in_address(task, address, size));
    call->may_wait = !call->socket->nonblocking();
    call->events = EPOLLOUT;
    call->deadline = call->socket->send_deadline();
    return run_socket_call(task, std::move(call));
}

Status sys_getsockname(Task& task, Fd fd, UserPtr<uint8_t> address, UserPtr<int32_t> size) {
    const auto socket = TRY(get_socket(task, fd));
    if (!address) {
        return Errno(EFAULT);
    }
    return copy_out_address(task, TRY(socket->local_address(task)), address, size);
}

Status sys_getpeername(Task& task, Fd fd, UserPtr<uint8_t> address, UserPtr<int32_t> size) {
    const auto socket = TRY(get_socket(task, fd));
    const SocketAddress peer = TRY(socket->peer_address(task));
    if (!address) {
        return Errno(EFAULT);
    }
    return copy_out_address(task, peer, address, size);
}

Status sys_shutdown(Task& task, Fd fd, int how) {
    return TRY(get_socket(task, fd))->shutdown(task, how);
}

Status sys_setsockopt(Task& task, Fd fd, int level, int name, UserPtr<const uint8_t> value,
                      int size) {
    if (size < 0) {
        return Errno(EINVAL);
    }
    const auto socket = TRY(get_socket(task, fd));
    const auto bounded = static_cast<size_t>(std::min(size, kMaxOption));
    return socket->set_option(task, level, name, TRY(task.copy_in_array(value, bounded)));
}

Status sys_getsockopt(Task& task, Fd fd, int level, int name, UserPtr<uint8_t> value,
                      UserPtr<int32_t> size) {
    const auto socket = TRY(get_socket(task, fd));
    const int32_t room = TRY(task.copy_in(size.cast<const int32_t>()));
    if (room < 0) {
        return Errno(EINVAL);
    }
    const std::vector<uint8_t> bytes =
        TRY(socket->get_option(task, level, name, static_cast<size_t>(room)));
    const size_t fits = std::min(bytes.size(), static_cast<size_t>(room));
    TRY(task.copy_out_bytes(value.address(), bytes.data(), fits));
    return task.copy_out(size, static_cast<int32_t>(fits));
}

}  // namespace moat::kernel
