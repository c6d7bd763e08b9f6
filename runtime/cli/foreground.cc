#include "runtime/cli/foreground.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <thread>

#include "kernel/base/cleanup.h"
#include "runtime/util/files.h"

namespace moat::runtime::cli {

Foreground::Foreground() {
    sigset_t mask;
    sigfillset(&mask);
    // Not the process's: children of ours, our own pipes and faults.
    for (const int sig : {SIGCHLD, SIGPIPE, SIGURG, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP,
                          SIGABRT, SIGTTOU, SIGTTIN}) {
        sigdelset(&mask, sig);
    }
    ::pthread_sigmask(SIG_BLOCK, &mask, &old_mask_);
    signals_.reset(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    ::signal(SIGPIPE, SIG_IGN);
}

Foreground::~Foreground() { ::pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr); }

Status Foreground::open_terminal() {
    pty_ = TRY(open_pty());
    winsize size{};
    if (::ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0) {
        ::ioctl(pty_->master.get(), TIOCSWINSZ, &size);
    }
    return {};
}

Stdio Foreground::stdio() const {
    Stdio stdio;
    if (pty_) {
        stdio.console_fd = pty_->slave.get();
        return stdio;
    }
    // A closed descriptor becomes the guest's /dev/null.
    stdio.stdin_fd = ::fcntl(0, F_GETFD) >= 0 ? 0 : -1;
    stdio.stdout_fd = ::fcntl(1, F_GETFD) >= 0 ? 1 : -1;
    stdio.stderr_fd = ::fcntl(2, F_GETFD) >= 0 ? 2 : -1;
    return stdio;
}

void Foreground::pass_size(const Process& process) {
    winsize size{};
    if (::ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0) {
        ::ioctl(pty_->master.get(), TIOCSWINSZ, &size);
        process.resize(size.ws_row, size.ws_col);
    }
}

void Foreground::copy_input() {
    char buffer[4096];
    const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
        return;
    }
    if (n <= 0) {
        input_open_ = false;
        // A terminal has no end of file but this character (VEOF, ^D by default).
        (void)write_all(pty_->master.get(), "\x04");
        return;
    }
    (void)write_all(pty_->master.get(), std::string(buffer, n));
}

bool Foreground::copy_output() {
    char buffer[16384];
    const ssize_t n = ::read(pty_->master.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) {
        return true;
    }
    if (n <= 0) {
        output_open_ = n < 0 && errno == EAGAIN;  // EIO: nobody has the other side any more
        return false;
    }
    (void)write_all(STDOUT_FILENO, std::string(buffer, n));
    return true;
}

Result<ExitStatus> Foreground::run(const Process& process) {
    std::optional<termios> saved;
    if (pty_) {
        pty_->slave.reset();  // the sentry has its own; output ends when that is closed
        termios settings;
        if (::tcgetattr(STDIN_FILENO, &settings) == 0) {
            saved = settings;
            ::cfmakeraw(&settings);
            ::tcsetattr(STDIN_FILENO, TCSANOW, &settings);
        }
        pass_size(process);
    }
    Cleanup restore([&] {
        if (saved) {
            ::tcsetattr(STDIN_FILENO, TCSANOW, &*saved);
        }
    });

    const ScopedFd done(::eventfd(0, EFD_CLOEXEC));
    if (!done || !signals_) {
        return Error::from_errno(errno, "wait for the process");
    }
    Result<ExitStatus> result = Error::from_errno(ECHILD, "wait for the process");
    std::thread waiter([&] {
        result = process.wait();
        const uint64_t one = 1;
        [[maybe_unused]] const ssize_t n = ::write(done.get(), &one, sizeof one);
    });
    for (bool running = true; running;) {
        pollfd p[4] = {{done.get(), POLLIN, 0},
                       {signals_.get(), POLLIN, 0},
                       {pty_ && input_open_ ? STDIN_FILENO : -1, POLLIN, 0},
                       {pty_ && output_open_ ? pty_->master.get() : -1, POLLIN, 0}};
        if (::poll(p, 4, -1) < 0 && errno != EINTR) {
            break;
        }
        signalfd_siginfo info;
        while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
            if (info.ssi_signo == SIGWINCH) {
                if (pty_) {
                    pass_size(process);
                }
            } else {
                process.signal(static_cast<int>(info.ssi_signo));
            }
        }
        if (p[3].revents != 0) {
            copy_output();
        }
        if (p[2].revents != 0) {
            copy_input();
        }
        running = p[0].revents == 0;
    }
    waiter.join();
    if (pty_) {
        // What it wrote before it ended is in the pty by now.
        ::fcntl(pty_->master.get(), F_SETFL, O_NONBLOCK);
        while (output_open_ && copy_output()) {
        }
    }
    return result;
}

}  // namespace moat::runtime::cli
