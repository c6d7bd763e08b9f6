#include "cri/streaming/pipes.h"

#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <string>

namespace moat::cri::streaming {

Result<Pipe> open_pipe() {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return Error::from_errno(errno, "pipe");
    }
    return Pipe{ScopedFd(fds[0]), ScopedFd(fds[1])};
}

Result<Pty> open_pty() {
    Pty pty{ScopedFd(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)), ScopedFd()};
    char name[64];
    if (!pty.master || grantpt(pty.master.get()) != 0 || unlockpt(pty.master.get()) != 0 ||
        ptsname_r(pty.master.get(), name, sizeof(name)) != 0) {
        return Error::from_errno(errno, "open a pty");
    }
    pty.slave.reset(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
    termios settings{};
    if (!pty.slave || tcgetattr(pty.slave.get(), &settings) != 0) {
        return Error::from_errno(errno, std::string("open ") + name);
    }
    cfmakeraw(&settings);
    if (tcsetattr(pty.slave.get(), TCSANOW, &settings) != 0) {
        return Error::from_errno(errno, std::string("make raw ") + name);
    }
    return pty;
}

}  // namespace moat::cri::streaming
