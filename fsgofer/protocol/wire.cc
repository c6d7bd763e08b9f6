#include "fsgofer/protocol/wire.h"

#include <sys/socket.h>

namespace moat::gofer {

Result<size_t> receive_packet(int socket, char* buffer, size_t size, ScopedFd* fd, int flags) {
    iovec vector{buffer, size};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    if (fd != nullptr) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
    }
    ssize_t n;
    do {
        n = ::recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return Errno(errno);
    }
    if (fd != nullptr) {
        for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
                c->cmsg_len == CMSG_LEN(sizeof(int))) {
                int received;
                memcpy(&received, CMSG_DATA(c), sizeof received);
                fd->reset(received);
            }
        }
    }
    if ((message.msg_flags & MSG_TRUNC) != 0) {
        return Errno(EMSGSIZE);
    }
    if ((message.msg_flags & MSG_CTRUNC) != 0) {
        return Errno(EPROTO);
    }
    return static_cast<size_t>(n);
}

Status send_packet(int socket, const char* data, size_t size, int fd) {
    iovec vector{const_cast<char*>(data), size};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    if (fd >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        cmsghdr* c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n;
    do {
        n = ::sendmsg(socket, &message, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return Errno(errno);
    }
    // A packet goes as a whole or not at all.
    return static_cast<size_t>(n) == size ? Status() : Status(Errno(EMSGSIZE));
}

int check_name(std::string_view name) {
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of(std::string_view("/\0", 2)) != std::string_view::npos) {
        return EINVAL;
    }
    return name.size() > kMaxName ? ENAMETOOLONG : 0;
}

int check_path(std::string_view path) {
    if (path.size() > kMaxPath) {
        return ENAMETOOLONG;
    }
    while (true) {
        const size_t slash = path.find('/');
        if (const int error = check_name(path.substr(0, slash))) {
            return error;
        }
        if (slash == std::string_view::npos) {
            return 0;
        }
        path.remove_prefix(slash + 1);
    }
}

}  // namespace moat::gofer
