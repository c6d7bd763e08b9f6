#include "cri/server/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <grpcpp/server_posix.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>

#include "cri/base/log.h"

namespace moat::cri {

namespace {

/// As many may wait as the kernel allows (net.core.somaxconn cuts it).
constexpr int kBacklog = 4096;
/// Descriptors that clients do not get: pods, images and plugins need them.
constexpr rlim_t kKept = 256;
constexpr int kPauseMs = 100;

LogLimit& limit() {
    static LogLimit limit(5, 1);
    return limit;
}

/// Removes a socket that nobody listens on.
Status clear(const std::string& path, const sockaddr_un& address) {
    const ScopedFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
        return Error(EBUSY, "--socket " + path + ": somebody listens on it");
    }
    if (errno == ECONNREFUSED && unlink(path.c_str()) != 0) {
        return Error::from_errno(errno, "remove the socket " + path);
    }
    return {};
}

/// Whether a new descriptor of this number leaves enough for everything else.
bool leaves_enough(int fd) {
    rlimit files{};
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY) {
        return true;
    }
    // The lowest free number is always the next, so a number tells how many are in use.
    return static_cast<rlim_t>(fd) < files.rlim_cur - std::min(kKept, files.rlim_cur / 4);
}

}  // namespace

Listener::Listener(std::string path, ino_t inode, ScopedFd socket, ScopedFd ends)
    : path_(std::move(path)), inode_(inode), socket_(std::move(socket)), ends_(std::move(ends)) {}

Result<std::unique_ptr<Listener>> Listener::open(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) {
        return invalid_argument("--socket " + path + ": longer than " +
                                std::to_string(sizeof(address.sun_path) - 1) + " bytes");
    }
    path.copy(address.sun_path, path.size());
    TRY(clear(path, address));
    ScopedFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    ScopedFd ends(eventfd(0, EFD_CLOEXEC));
    // Whoever may connect is root of the node in all but name. The umask closes the moment between
    // bind and chmod.
    const mode_t before = umask(0177);
    const bool bound =
        fd && ends && bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
    const int error = errno;
    umask(before);
    if (!bound || listen(fd.get(), kBacklog) != 0) {
        return Error::from_errno(bound ? errno : error, "--socket " + path + ": listen on it");
    }
    struct stat bound_to {};
    if (stat(path.c_str(), &bound_to) != 0) {
        return Error::from_errno(errno, "--socket " + path + ": stat");
    }
    return std::unique_ptr<Listener>(
        new Listener(path, bound_to.st_ino, std::move(fd), std::move(ends)));
}

Listener::~Listener() { stop(); }

void Listener::serve(::grpc::Server& server) {
    thread_ = std::thread([this, &server] { accept_all(server); });
}

void Listener::stop() {
    if (thread_.joinable()) {
        eventfd_write(ends_.get(), 1);
        thread_.join();
    }
    struct stat there {};
    if (socket_ && stat(path_.c_str(), &there) == 0 && there.st_ino == inode_) {
        unlink(path_.c_str());
    }
    socket_.reset();
}

int Listener::admit(::grpc::Server& server) {
    ScopedFd fd(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
        switch (errno) {
            case EAGAIN:
            case EINTR:
            case ECONNABORTED:
                return 0;
            default:
                if (limit().admit().admitted) {
                    spdlog::error("a client cannot be let in: {}", strerror(errno));
                }
                return kPauseMs;  // those who wait stay in the backlog
        }
    }
    if (!leaves_enough(fd.get())) {
        if (limit().admit().admitted) {
            spdlog::error("a client is turned away: {} descriptors are in use", fd.get());
        }
        return 0;
    }
    ::grpc::AddInsecureChannelFromFd(&server, fd.release());
    return 0;
}

void Listener::accept_all(::grpc::Server& server) {
    int pause = 0;
    for (;;) {
        pollfd fds[] = {{ends_.get(), POLLIN, 0}, {socket_.get(), POLLIN, 0}};
        if (pause > 0) {
            poll(fds, 1, pause);
        } else {
            poll(fds, 2, -1);
        }
        if (fds[0].revents != 0) {
            return;
        }
        pause = admit(server);
    }
}

}  // namespace moat::cri
