#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/native/monitor/monitor.h"

namespace moat::monitor {

namespace {

int fail(const std::string& what) {
    send_text(kAnswerFd, "error " + what + "\n");
    return 1;
}

/// Copies what is there now from one to the other; false at the end of `from`.
bool copy(int from, int to) {
    char buffer[16 << 10];
    const ssize_t n = read(from, buffer, sizeof buffer);
    if (n <= 0) {
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    }
    send_text(to, std::string(buffer, static_cast<size_t>(n)));
    return true;
}

}  // namespace

int monitor_exec(const Options& options) {
    const ScopedFd signals = child_signals();
    const std::string pid_file = options.process + ".pid";
    ConsoleSocket console;
    std::vector<std::string> arguments = {"exec",          "--detach",   "--process",
                                          options.process, "--pid-file", pid_file};
    StdioFds stdio{4, 5, 6};
    if (options.terminal) {
        if (!console.open(options.state)) {
            return fail(std::string("console socket: ") + strerror(errno));
        }
        arguments.insert(arguments.end(), {"--tty", "--console-socket", console.path});
        stdio = {};
    }
    arguments.push_back(options.id);
    const int failed = run(options.program, arguments, stdio);
    const pid_t pid = static_cast<pid_t>(atoi(read_text(pid_file).c_str()));
    unlink(pid_file.c_str());
    unlink(options.process.c_str());
    if (failed != 0 || pid <= 0) {
        const std::string why = last_error(options.program);
        unlink(options.program.log.c_str());
        return fail(options.program.path +
                    " exec: " + (why.empty() ? "exit status " + std::to_string(failed) : why));
    }
    unlink(options.program.log.c_str());
    ScopedFd terminal;
    if (options.terminal) {
        terminal = console.receive();
        if (!terminal) {
            return fail(options.program.path + " exec: sent no terminal");
        }
        if (options.rows != 0 || options.columns != 0) {
            set_window(terminal.get(), options.rows, options.columns);
        }
        fcntl(terminal.get(), F_SETFL, O_RDWR | O_NONBLOCK);
    } else {
        // The process has its own; the other ends must see it close them.
        for (const int fd : {4, 5, 6}) {
            close(fd);
        }
    }
    send_text(kAnswerFd, "pid " + std::to_string(pid) + "\n");
    int status = 0;
    int64_t ended_ns = 0;
    bool bridged = bool(terminal);
    bool peer = true;
    bool input = true;
    while (ended_ns == 0) {
        pollfd fds[] = {{signals.get(), POLLIN, 0},
                        {peer ? kAnswerFd : -1, POLLIN, 0},
                        {bridged ? terminal.get() : -1, POLLIN, 0},
                        {bridged && input ? 4 : -1, POLLIN, 0}};
        if (poll(fds, 4, -1) < 0) {
            continue;
        }
        if (fds[2].revents != 0) {
            bridged = copy(terminal.get(), 4);
        }
        if (fds[3].revents != 0) {
            input = copy(4, terminal.get());
        }
        if (fds[1].revents != 0) {
            char text[64];
            unsigned rows, columns;
            const ssize_t n = read(kAnswerFd, text, sizeof text - 1);
            peer = n > 0;  // moatd is gone: the process runs on, its streams with it or not
            text[n > 0 ? n : 0] = '\0';
            if (sscanf(text, "resize %u %u", &rows, &columns) == 2) {
                set_window(terminal.get(), rows, columns);
            }
        }
        if (fds[0].revents != 0 && reap(signals.get(), pid, status)) {
            ended_ns = realtime_ns();
        }
    }
    if (bridged) {
        char buffer[16 << 10];
        for (ssize_t n; (n = read(terminal.get(), buffer, sizeof buffer)) > 0;) {
            send_text(4, std::string(buffer, static_cast<size_t>(n)));
        }
    }
    if (terminal) {
        close(4);
    }
    const bool signalled = WIFSIGNALED(status);
    send_text(kAnswerFd, "exit " + std::to_string(signalled ? 0 : WEXITSTATUS(status)) + " " +
                             std::to_string(signalled ? WTERMSIG(status) : 0) + " " +
                             std::to_string(ended_ns) + "\n");
    return 0;
}

}  // namespace moat::monitor
