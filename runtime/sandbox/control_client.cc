#include "runtime/sandbox/control_client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

namespace moat::runtime {

namespace {

sockaddr_un address_in(int directory, const std::string& name) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", directory,
             name.c_str());
    return address;
}

}  // namespace

Result<ScopedFd> listen_in(int directory, const std::string& name) {
    ScopedFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) {
        return Error::from_errno(errno, "socket");
    }
    // The mode of the socket's file comes from the socket's own inode: never open to others,
    // without touching the umask of the whole process.
    ::fchmod(fd.get(), 0600);
    ::unlinkat(directory, name.c_str(), 0);
    const sockaddr_un address = address_in(directory, name);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return Error::from_errno(errno, "bind " + name);
    }
    if (::listen(fd.get(), 128) != 0) {
        return Error::from_errno(errno, "listen on " + name);
    }
    return fd;
}

Result<ControlClient> ControlClient::connect(int state_directory) {
    ScopedFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) {
        return Error::from_errno(errno, "socket");
    }
    const sockaddr_un address = address_in(state_directory, "control.sock");
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return Error::from_errno(errno, "connect to the sentry");
    }
    return ControlClient(std::move(fd));
}

Result<control::Json> ControlClient::receive() {
    auto message = control::receive_message(socket_.get());
    if (!message.ok()) {
        const Errno error = message.error();
        if (error == ECONNRESET || error == EPIPE) {
            return Error(ECONNRESET, "the sentry is gone");
        }
        if (error == EAGAIN) {
            return Error(ETIMEDOUT, "the sentry does not answer");
        }
        return Error::from_errno(error.value(), "receive from the sentry");
    }
    return std::move(message->body);
}

Result<control::Json> ControlClient::call(const std::string& method, control::Json fields,
                                          const std::vector<NamedFd>& fds, int timeout_ms) {
    fields["method"] = method;
    std::vector<int> raw;
    if (!fds.empty()) {
        control::Json names = control::Json::array();
        for (const NamedFd& fd : fds) {
            names.push_back(fd.name);
            raw.push_back(fd.fd);
        }
        fields["fds"] = std::move(names);
    }
    const timeval timeout{timeout_ms / 1000, timeout_ms % 1000 * 1000};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    const auto sent = control::send_message(socket_.get(), fields, raw);
    if (!sent.ok()) {
        const int error = sent.error().value();
        if (error == EPIPE || error == ECONNRESET) {
            return Error(ECONNRESET, method + ": the sentry is gone");
        }
        return Error::from_errno(error, method + ": send to the sentry");
    }
    control::Json answer = TRY_STEP(method, receive());
    if (!control::get_bool(answer, "ok")) {
        const auto code = control::get_int(answer, "errno", EIO);
        return Error(code > 0 && code < 4096 ? static_cast<int>(code) : EIO,
                     control::get_string(answer, "message", method + ": refused without a reason"));
    }
    return answer;
}

}  // namespace moat::runtime
