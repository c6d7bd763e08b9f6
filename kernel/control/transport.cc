#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>

#include "kernel/control/messages.h"

namespace moat::control {

namespace {

/// Room for one SCM_RIGHTS message of the most descriptors the kernel passes at once (SCM_MAX_FD is
/// 253): a peer that sends more than kMaxFds is told apart from one whose message was truncated.
constexpr size_t kControlBytes = CMSG_SPACE(253 * sizeof(int));

/// Takes over every descriptor that came with `header`, so that none can leak on an error path.
/// False if the kernel had to drop some.
bool take_fds(msghdr& header, std::vector<ScopedFd>& fds) {
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
            fds.emplace_back(fd);
        }
    }
    return (header.msg_flags & MSG_CTRUNC) == 0;
}

/// Fills `size` bytes at `data`. ECONNRESET at end of file.
Status receive_exactly(int socket, void* data, size_t size, std::vector<ScopedFd>& fds) {
    char* at = static_cast<char*>(data);
    bool whole = true;
    while (size > 0) {
        alignas(cmsghdr) char control[kControlBytes];
        iovec iov{at, size};
        msghdr header{};
        header.msg_iov = &iov;
        header.msg_iovlen = 1;
        header.msg_control = control;
        header.msg_controllen = sizeof control;
        const ssize_t n = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return Errno(errno);
        }
        whole &= take_fds(header, fds);
        if (n == 0) {
            return Errno(ECONNRESET);
        }
        at += n;
        size -= n;
    }
    if (!whole || fds.size() > kMaxFds) {
        return Errno(EBADMSG);
    }
    return {};
}

}  // namespace

Status send_message(int socket, const Json& body, const std::vector<int>& fds) {
    if (fds.size() > kMaxFds) {
        return Errno(EMSGSIZE);
    }
    // Bytes that are not UTF-8 (a guest's process name) are replaced, as dump() would abort on
    // them.
    std::string bytes(4, '\0');
    bytes += body.dump(-1, ' ', false, Json::error_handler_t::replace);
    const size_t length = bytes.size() - 4;
    if (length > kMaxMessage) {
        return Errno(EMSGSIZE);
    }
    const uint32_t prefix = htole32(static_cast<uint32_t>(length));
    memcpy(bytes.data(), &prefix, sizeof prefix);

    alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
    size_t sent = 0;
    while (sent < bytes.size()) {
        iovec iov{bytes.data() + sent, bytes.size() - sent};
        msghdr header{};
        header.msg_iov = &iov;
        header.msg_iovlen = 1;
        if (sent == 0 && !fds.empty()) {
            header.msg_control = control;
            header.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
            cmsghdr* c = CMSG_FIRSTHDR(&header);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
            memcpy(CMSG_DATA(c), fds.data(), fds.size() * sizeof(int));
        }
        const ssize_t n = sendmsg(socket, &header, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return Errno(errno);
        }
        sent += n;
    }
    return {};
}

Result<Message> receive_message(int socket) {
    Message message;
    uint32_t prefix;
    TRY(receive_exactly(socket, &prefix, sizeof prefix, message.fds));
    const uint32_t length = le32toh(prefix);
    if (length > kMaxMessage) {
        return Errno(EMSGSIZE);
    }
    // Grown as bytes arrive: a peer's bare claim of 8 MiB costs us nothing.
    std::string bytes;
    while (bytes.size() < length) {
        const size_t at = bytes.size();
        const size_t step = std::min<size_t>(length - at, 64 << 10);
        bytes.resize(at + step);
        TRY(receive_exactly(socket, bytes.data() + at, step, message.fds));
    }
    message.body = Json::parse(bytes, nullptr, false);
    if (message.body.is_discarded() || !message.body.is_object()) {
        return Errno(EBADMSG);
    }
    return message;
}

}  // namespace moat::control
