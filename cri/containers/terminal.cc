#include "cri/containers/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cri/base/files.h"

namespace moat::cri {

std::string cri_log_lines(std::string_view data, int64_t time_ns, const char* stream) {
    const time_t seconds = time_ns / 1'000'000'000;
    tm parts{};
    gmtime_r(&seconds, &parts);
    char stamp[64];
    const size_t length = strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(stamp + length, sizeof(stamp) - length, ".%09dZ %s ",
             static_cast<int>(time_ns % 1'000'000'000), stream);
    std::string lines;
    while (!data.empty()) {
        const size_t end = data.find('\n');
        lines += stamp;
        lines += end == std::string_view::npos ? "P " : "F ";
        lines += data.substr(0, end);
        lines += '\n';
        data.remove_prefix(end == std::string_view::npos ? data.size() : end + 1);
    }
    return lines;
}

Terminal::Terminal(ScopedFd master, ScopedFd slave, ScopedFd wake)
    : master_(std::move(master)), slave_(std::move(slave)), wake_(std::move(wake)) {}

Result<std::shared_ptr<Terminal>> Terminal::create() {
    ScopedFd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    char name[64];
    if (!master || grantpt(master.get()) != 0 || unlockpt(master.get()) != 0 ||
        ptsname_r(master.get(), name, sizeof(name)) != 0) {
        return Error::from_errno(errno, "terminal: open a pty");
    }
    ScopedFd slave(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
    termios settings{};
    if (!slave || tcgetattr(slave.get(), &settings) != 0) {
        return Error::from_errno(errno, std::string("terminal: open ") + name);
    }
    // Raw: the guest kernel has the line discipline.
    cfmakeraw(&settings);
    if (tcsetattr(slave.get(), TCSANOW, &settings) != 0) {
        return Error::from_errno(errno, std::string("terminal: make raw ") + name);
    }
    ScopedFd wake(eventfd(0, EFD_CLOEXEC));
    if (!wake) {
        return Error::from_errno(errno, "terminal: eventfd");
    }
    return std::shared_ptr<Terminal>(
        new Terminal(std::move(master), std::move(slave), std::move(wake)));
}

Terminal::~Terminal() {
    if (reader_.joinable()) {
        eventfd_write(wake_.get(), 1);
        reader_.join();
    }
}

void Terminal::start(ScopedFd log) {
    set_log(std::move(log));
    reader_ = std::thread([this] { run(); });
}

void Terminal::set_log(ScopedFd log) {
    const std::lock_guard lock(mu_);
    log_ = std::move(log);
}

void Terminal::run() {
    for (;;) {
        pollfd fds[] = {{master_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR) {
            return;
        }
        if (fds[1].revents != 0) {
            // The container has ended: what it wrote last is in the pty, and there will be no more.
            fcntl(master_.get(), F_SETFL, O_RDWR | O_NONBLOCK);
        }
        char buffer[16384];
        const ssize_t n = read(master_.get(), buffer, sizeof(buffer));
        if (n <= 0) {
            if (n < 0 && errno == EINTR) {
                continue;
            }
            return;  // EIO: the last holder of the slave has closed it
        }
        const std::lock_guard lock(mu_);
        if (log_) {
            (void)write_all(log_.get(),
                            cri_log_lines({buffer, static_cast<size_t>(n)}, now_ns(), "stdout"),
                            "log");
        }
    }
}

}  // namespace moat::cri
