// moat-pause [--hostname NAME] [KEY=VALUE...]: holds the namespaces of a native pod, which it was
// started in, as long as it lives, and is process 1 of the pod's process namespace: what its
// containers leave behind there is reaped here. KEY=VALUE are sysctls of those namespaces.
// Descriptor 3 gets "ok", or what failed.

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace {

constexpr int kAnswer = 3;

[[noreturn]] void answer(const std::string& text, int status) {
    (void)!write(kAnswer, text.data(), text.size());
    _exit(status);
}

void set_sysctl(const std::string& assignment) {
    const size_t equals = assignment.find('=');
    std::string name = assignment.substr(0, equals);
    std::string path = "/proc/sys/";
    // sysctl(8): the first separator decides; "net/ipv4/conf/eth0.1/forwarding" keeps its dot.
    const bool dots =
        name.find_first_of("./") != std::string::npos && name[name.find_first_of("./")] == '.';
    for (const char c : name) {
        path += dots && c == '.' ? '/' : dots && c == '/' ? '.' : c;
    }
    const std::string value = assignment.substr(equals + 1);
    const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
        answer("sysctl " + assignment + ": " + strerror(errno), 1);
    }
    close(fd);
}

}  // namespace

int main(int argc, char** argv) {
    prctl(PR_SET_NAME, "moat-pause");
    sigset_t wanted;
    sigemptyset(&wanted);
    for (const int signal : {SIGCHLD, SIGTERM, SIGINT}) {
        sigaddset(&wanted, signal);
    }
    sigprocmask(SIG_BLOCK, &wanted, nullptr);
    for (int i = 1; i < argc; i++) {
        const std::string argument = argv[i];
        if (argument == "--hostname" && i + 1 < argc) {
            i++;
            if (sethostname(argv[i], strlen(argv[i])) != 0) {
                answer(std::string("hostname ") + argv[i] + ": " + strerror(errno), 1);
            }
        } else if (argument.find('=') != std::string::npos) {
            set_sysctl(argument);
        } else {
            answer("argument " + argument + ": unknown", 2);
        }
    }
    if (write(kAnswer, "ok", 2) != 2) {
        return 1;  // whoever started us is gone and has not written us down
    }
    close(kAnswer);
    for (;;) {
        int signal = 0;
        if (sigwait(&wanted, &signal) == 0 && signal != SIGCHLD) {
            return 0;
        }
        while (waitpid(-1, nullptr, WNOHANG) > 0) {
        }
    }
}
