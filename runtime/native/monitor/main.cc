// moat-monitor container|exec OPTIONS: stands by one native container or one process in it, as
// containerd's shims and conmon do: calls runc, is the parent of what it leaves running, holds its
// streams, writes its log, keeps its exit status. moatd may die meanwhile.

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/native/monitor/monitor.h"

namespace moat::monitor {

void send_text(int fd, const std::string& text) {
    for (size_t done = 0; done < text.size();) {
        const ssize_t n = write(fd, text.data() + done, text.size() - done);
        if (n > 0) {
            done += static_cast<size_t>(n);
        } else if (errno != EINTR) {
            return;
        }
    }
}

ScopedFd child_signals() {
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, nullptr);
    return ScopedFd(signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
}

bool reap(int signals, pid_t pid, int& status) {
    signalfd_siginfo info;
    while (read(signals, &info, sizeof info) > 0) {
    }
    bool found = false;
    int one = 0;
    for (pid_t ended; (ended = waitpid(-1, &one, WNOHANG)) > 0;) {
        if (ended == pid) {
            status = one;
            found = true;
        }
    }
    return found;
}

void set_window(int terminal, unsigned rows, unsigned columns) {
    const winsize size{static_cast<unsigned short>(rows), static_cast<unsigned short>(columns), 0,
                       0};
    ioctl(terminal, TIOCSWINSZ, &size);
}

}  // namespace moat::monitor

int main(int argc, char** argv) {
    using namespace moat::monitor;
    prctl(PR_SET_NAME, "moat-monitor");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGPIPE, SIG_IGN);
    Options options;
    const std::string mode = argc > 1 ? argv[1] : "";
    for (int i = 2; i < argc; i++) {
        const std::string name = argv[i];
        bool* flags[] = {&options.terminal, &options.log, &options.stdin, &options.stdin_once};
        const char* flag_names[] = {"--terminal", "--log", "--stdin", "--stdin-once"};
        bool known = false;
        for (size_t f = 0; f < 4; f++) {
            if (name == flag_names[f]) {
                *flags[f] = known = true;
            }
        }
        if (known) {
            continue;
        }
        const std::string value = i + 1 < argc ? argv[++i] : "";
        if (name == "--program") {
            options.program.path = value;
        } else if (name == "--program-root") {
            options.program.root = value;
        } else if (name == "--program-log") {
            options.program.log = value;
        } else if (name == "--id") {
            options.id = value;
        } else if (name == "--bundle") {
            options.bundle = value;
        } else if (name == "--state") {
            options.state = value;
        } else if (name == "--events") {
            options.events = value;
        } else if (name == "--cgroup") {
            options.cgroup.push_back(value);
        } else if (name == "--process") {
            options.process = value;
        } else if (name == "--rows") {
            options.rows = static_cast<unsigned>(atoi(value.c_str()));
        } else if (name == "--columns") {
            options.columns = static_cast<unsigned>(atoi(value.c_str()));
        } else {
            fprintf(stderr, "moat-monitor: %s: unknown\n", name.c_str());
            return 2;
        }
    }
    if (mode == "container") {
        return monitor_container(options);
    }
    if (mode == "exec") {
        return monitor_exec(options);
    }
    fprintf(stderr, "usage: moat-monitor container|exec OPTIONS; moatd calls it\n");
    return 2;
}
