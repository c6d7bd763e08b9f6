#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "runtime/container/impl.h"

namespace moat::runtime {

Result<Pty> open_pty() {
    Pty pty;
    pty.master.reset(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!pty.master) {
        return Error::from_errno(errno, "open /dev/ptmx");
    }
    int unlock = 0;
    if (::ioctl(pty.master.get(), TIOCSPTLCK, &unlock) != 0) {
        return Error::from_errno(errno, "unlock the terminal");
    }
    // By the master rather than by a path: right whatever is mounted at /dev/pts.
    pty.slave.reset(::ioctl(pty.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!pty.slave) {
        return Error::from_errno(errno, "open the terminal's other side");
    }
    termios settings;
    if (::tcgetattr(pty.slave.get(), &settings) != 0) {
        return Error::from_errno(errno, "read the terminal's settings");
    }
    ::cfmakeraw(&settings);
    if (::tcsetattr(pty.slave.get(), TCSANOW, &settings) != 0) {
        return Error::from_errno(errno, "set the terminal raw");
    }
    return pty;
}

Status send_console(const std::string& path, int master) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        return Error::from_errno(ENAMETOOLONG, "console socket " + path);
    }
    memcpy(address.sun_path, path.data(), path.size());
    const ScopedFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket ||
        ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return Error::from_errno(errno, "connect to the console socket " + path);
    }
    // OCI says nothing of the bytes; runc sends the terminal's name, and some receivers show it.
    char name[] = "/dev/ptmx";
    iovec iov{name, sizeof name - 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &iov;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &master, sizeof master);
    if (::sendmsg(socket.get(), &header, MSG_NOSIGNAL) < 0) {
        return Error::from_errno(errno, "send the terminal to " + path);
    }
    return {};
}

}  // namespace moat::runtime
