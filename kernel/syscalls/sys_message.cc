// send(2), recv(2) and their variants.

#include <limits.h>

#include <algorithm>
#include <optional>

#include "kernel/mm/address_space.h"
#include "kernel/syscalls/handlers_io.h"
#include "kernel/syscalls/io_common.h"
#include "kernel/syscalls/socket_common.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

namespace {

constexpr uint32_t kMaxMessages = 1024;  // UIO_MAXIOV, sendmmsg(2)

/// iovec arrays of messages: too many pieces are EMSGSIZE here, not EINVAL.
Result<IoBuffer> message_buffer(Task& task, const msghdr& header) {
    if (header.msg_iovlen > IOV_MAX) {
        return Errno(EMSGSIZE);
    }
    return IoBuffer::guest_iovec(task.mm_ref(),
                                 UserPtr<const iovec>(reinterpret_cast<uint64_t>(header.msg_iov)),
                                 header.msg_iovlen);
}

// ---------------------------------------------------------------- sending

/// One or more messages on their way out.
class SendCall final : public SocketCall {
  public:
    using SocketCall::SocketCall;
    int flags = 0;
    UserPtr<mmsghdr> vector;  // sendmmsg: where the messages are
    uint32_t count = 1;       // of messages

    /// The current message.
    IoBuffer data;
    std::optional<SocketAddress> to;
    Ancillary control;

    Status load(Task& task, UserPtr<const msghdr> user) {
        const msghdr header = TRY(task.copy_in(user));
        to.reset();
        if (header.msg_name != nullptr && header.msg_namelen != 0) {
            const UserPtr<const uint8_t> name(reinterpret_cast<uint64_t>(header.msg_name));
            to = TRY(copy_in_address(task, name, static_cast<int>(header.msg_namelen)));
        }
        data = TRY(message_buffer(task, header));
        const UserPtr<const uint8_t> ancillary(reinterpret_cast<uint64_t>(header.msg_control));
        control = TRY(copy_in_control(task, ancillary, header.msg_controllen));
        return {};
    }

    Result<int64_t> step(Task& task) override {
        for (;;) {
            if (vector && !loaded_) {
                const Status status = load(task, UserPtr<const msghdr>(vector.at(done_).address()));
                if (!status.ok()) {
                    return give_up(task, status.error());
                }
                loaded_ = true;
            }
            const Result<int64_t> sent = send_current(task);
            if (!sent.ok()) {
                return sent.error() == EAGAIN ? sent : give_up(task, sent.error());
            }
            if (!vector) {
                return sent;
            }
            const UserPtr<uint32_t> length(vector.at(done_).address() + offsetof(mmsghdr, msg_len));
            TRY(task.copy_out(length, static_cast<uint32_t>(*sent)));
            loaded_ = false;
            if (++done_ == count) {
                return done_;
            }
        }
    }

    /// A part of a stream's bytes, or some of the messages, count as success.
    Result<int64_t> give_up(Task& task, Errno error) override {
        if (vector) {
            return done_ > 0 ? Result<int64_t>(done_) : error;
        }
        if (data.transferred() > 0 && socket->is_stream()) {
            return static_cast<int64_t>(data.transferred());
        }
        return error;
    }

  private:
    /// All of the current message; EAGAIN with a part of it gone.
    Result<int64_t> send_current(Task& task) {
        for (;;) {
            SendRequest request{data, to ? &*to : nullptr, &control, flags};
            const Result<size_t> n = socket->send(task, request);
            if (!n.ok()) {
                if (n.error() == EPIPE && socket->is_stream() && (flags & MSG_NOSIGNAL) == 0 &&
                    data.transferred() == 0) {
                    (void)send_signal(task, SignalInfo::from_kernel(SIGPIPE));
                }
                if (vector && data.transferred() > 0 && socket->is_stream() &&
                    !(n.error() == EAGAIN)) {
                    return static_cast<int64_t>(data.transferred());
                }
                return n.error();
            }
            if (!socket->is_stream() || data.empty() || *n == 0) {
                return static_cast<int64_t>(data.transferred());
            }
        }
    }

    bool loaded_ = false;
    uint32_t done_ = 0;
};

Result<std::shared_ptr<SendCall>> start_send(Task& task, Fd fd, int flags) {
    auto call = std::make_shared<SendCall>(TRY(get_socket(task, fd)));
    call->flags = flags;
    call->may_wait = !call->socket->nonblocking() && (flags & MSG_DONTWAIT) == 0;
    call->events = EPOLLOUT;
    call->deadline = call->socket->send_deadline();
    return call;
}

// ---------------------------------------------------------------- receiving

/// One or more messages on their way in.
class ReceiveCall final : public SocketCall {
  public:
    using SocketCall::SocketCall;
    int flags = 0;
    UserPtr<mmsghdr> vector;   // recvmmsg
    UserPtr<msghdr> single;    // recvmsg
    UserPtr<uint8_t> address;  // recvfrom
    UserPtr<int32_t> address_size;
    uint32_t count = 1;
    Timeout limit;  // recvmmsg's own, looked at between messages
    IoBuffer data;
    msghdr header{};

    Status load(Task& task, UserPtr<const msghdr> user) {
        header = TRY(task.copy_in(user));
        if (header.msg_name != nullptr && static_cast<int32_t>(header.msg_namelen) < 0) {
            return Errno(EINVAL);
        }
        data = TRY(message_buffer(task, header));
        first_ = true;
        return {};
    }

    Result<int64_t> step(Task& task) override {
        for (;;) {
            if (vector && !loaded_) {
                const Status status = load(task, UserPtr<const msghdr>(vector.at(done_).address()));
                if (!status.ok()) {
                    return give_up(task, status.error());
                }
                loaded_ = true;
            }
            const Result<int64_t> received = receive_current(task);
            if (!received.ok()) {
                const bool waits =
                    received.error() == EAGAIN && !(done_ > 0 && (flags & MSG_WAITFORONE) != 0);
                return waits ? received : give_up(task, received.error());
            }
            if (!vector) {
                return received;
            }
            const UserPtr<uint32_t> length(vector.at(done_).address() + offsetof(mmsghdr, msg_len));
            TRY(task.copy_out(length, static_cast<uint32_t>(*received)));
            loaded_ = false;
            const bool late = limit.is_zero || limit.remaining_ns() == 0;
            if (++done_ == count || late || *received == 0) {
                return done_;
            }
        }
    }

    Result<int64_t> give_up(Task& task, Errno error) override {
        if (vector) {
            return done_ > 0 ? Result<int64_t>(done_) : error;
        }
        if (data.transferred() > 0 && socket->is_stream()) {
            return finish(task, static_cast<int64_t>(data.transferred()));  // MSG_WAITALL, in part
        }
        return error;
    }

  private:
    Result<int64_t> receive_current(Task& task) {
        for (;;) {
            ReceiveRequest request{data};
            request.flags = flags;
            const Result<size_t> n = socket->receive(task, request);
            if (!n.ok()) {
                if (!(n.error() == EAGAIN) && data.transferred() > 0 && socket->is_stream()) {
                    return finish(task, static_cast<int64_t>(data.transferred()));
                }
                return n.error();
            }
            const bool brought = !request.control.empty();
            if (first_) {
                from_ = request.from;
                control_ = std::move(request.control);
                message_flags_ = request.message_flags;
                first_ = false;
            }
            const bool wants_all = socket->is_stream() && (flags & MSG_WAITALL) != 0 &&
                                   (flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE)) == 0;
            if (wants_all && *n > 0 && !data.empty() && !brought) {
                continue;
            }
            const bool in_pieces = wants_all && data.transferred() > 0;
            return finish(task, static_cast<int64_t>(in_pieces ? data.transferred() : *n));
        }
    }

    /// Hands out all but the bytes.
    Result<int64_t> finish(Task& task, int64_t result) {
        const auto cloexec = (flags & MSG_CMSG_CLOEXEC) != 0 ? CloseOnExec::kYes : CloseOnExec::kNo;
        if (!vector && !single) {
            TRY(copy_out_address(task, from_, address, address_size));
            control_ = {};
            return result;
        }
        const GuestAddr at = vector ? vector.at(done_).address() : single.address();
        if (header.msg_name != nullptr) {
            const size_t fits = std::min<size_t>(header.msg_namelen, from_.size);
            TRY(task.copy_out_bytes(GuestAddr{reinterpret_cast<uint64_t>(header.msg_name)},
                                    from_.bytes, fits));
            header.msg_namelen = from_.size;
        }
        int out_flags = message_flags_ | (flags & MSG_CMSG_CLOEXEC);
        const UserPtr<uint8_t> control(reinterpret_cast<uint64_t>(header.msg_control));
        header.msg_controllen = TRY(
            copy_out_control(task, control, header.msg_controllen, control_, cloexec, out_flags));
        header.msg_flags = out_flags;
        // Only what recvmsg(2) says it changes.
        TRY(task.copy_out(UserPtr<uint32_t>(at + offsetof(msghdr, msg_namelen)),
                          header.msg_namelen));
        TRY(task.copy_out(UserPtr<uint64_t>(at + offsetof(msghdr, msg_controllen)),
                          uint64_t{header.msg_controllen}));
        TRY(task.copy_out(UserPtr<int32_t>(at + offsetof(msghdr, msg_flags)), header.msg_flags));
        control_ = {};
        return result;
    }

    bool loaded_ = false;
    bool first_ = true;
    uint32_t done_ = 0;
    SocketAddress from_;
    Ancillary control_;
    int message_flags_ = 0;
};

Result<std::shared_ptr<ReceiveCall>> start_receive(Task& task, Fd fd, int flags) {
    auto call = std::make_shared<ReceiveCall>(TRY(get_socket(task, fd)));
    call->flags = flags;
    call->may_wait = !call->socket->nonblocking() && (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) == 0;
    call->events = EPOLLIN;
    call->deadline = call->socket->receive_deadline();
    return call;
}

}  // namespace

Result<int64_t> sys_sendto(Task& task, Fd fd, GuestAddr data, size_t size, int flags,
                           UserPtr<const uint8_t> address, int address_size) {
    auto call = TRY(start_send(task, fd, flags));
    if (address) {
        call->to = TRY(copy_in_address(task, address, address_size));
    }
    call->data = IoBuffer::guest(task.mm_ref(), data, std::min<size_t>(size, SSIZE_MAX));
    return run_socket_call(task, std::move(call));
}

Result<int64_t> sys_sendmsg(Task& task, Fd fd, UserPtr<const msghdr> message, int flags) {
    auto call = TRY(start_send(task, fd, flags));
    TRY(call->load(task, message));
    return run_socket_call(task, std::move(call));
}

Result<int64_t> sys_sendmmsg(Task& task, Fd fd, UserPtr<mmsghdr> messages, uint32_t count,
                             int flags) {
    auto call = TRY(start_send(task, fd, flags));
    if (count == 0) {
        return 0;
    }
    if (!messages) {
        return Errno(EFAULT);
    }
    call->vector = messages;
    call->count = std::min(count, kMaxMessages);
    return run_socket_call(task, std::move(call));
}

Result<int64_t> sys_recvfrom(Task& task, Fd fd, GuestAddr data, size_t size, int flags,
                             UserPtr<uint8_t> address, UserPtr<int32_t> address_size) {
    auto call = TRY(start_receive(task, fd, flags));
    call->address = address;
    call->address_size = address_size;
    call->data = IoBuffer::guest(task.mm_ref(), data, std::min<size_t>(size, SSIZE_MAX));
    return run_socket_call(task, std::move(call));
}

Result<int64_t> sys_recvmsg(Task& task, Fd fd, UserPtr<msghdr> message, int flags) {
    auto call = TRY(start_receive(task, fd, flags));
    if (!message) {
        return Errno(EFAULT);
    }
    call->single = message;
    TRY(call->load(task, message.cast<const msghdr>()));
    return run_socket_call(task, std::move(call));
}

Result<int64_t> sys_recvmmsg(Task& task, Fd fd, UserPtr<mmsghdr> messages, uint32_t count,
                             int flags, UserPtr<const timespec> timeout) {
    auto call = TRY(start_receive(task, fd, flags));
    call->limit = TRY(Timeout::copy_in(task, timeout));
    if (count == 0) {
        return 0;
    }
    if (!messages) {
        return Errno(EFAULT);
    }
    call->vector = messages;
    call->count = std::min(count, kMaxMessages);
    return run_socket_call(task, std::move(call));
}

}  // namespace moat::kernel
