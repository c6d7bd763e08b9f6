#include "runtime/native/monitor/runc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace moat::monitor {

int run(const Program& program, const std::vector<std::string>& arguments, const StdioFds& stdio) {
    std::vector<std::string> all = {program.path, "--root",       program.root, "--log",
                                    program.log,  "--log-format", "json"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& one : all) {
        argv.push_back(one.data());
    }
    argv.push_back(nullptr);
    const pid_t pid = fork();
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, nullptr);
        const int null = open("/dev/null", O_RDWR);
        const int wanted[3] = {stdio.in, stdio.out, stdio.err};
        int from[3];
        // Above the numbers that are about to be replaced.
        for (int i = 0; i < 3; i++) {
            from[i] = fcntl(wanted[i] >= 0 ? wanted[i] : null, F_DUPFD_CLOEXEC, 16);
        }
        for (int i = 0; i < 3; i++) {
            dup2(from[i], i);
        }
        execv(argv[0], argv.data());
        _exit(127);
    }
    if (pid < 0) {
        return 127;
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string last_error(const Program& program) {
    const std::string text = read_text(program.log);
    const size_t level = text.rfind("\"level\":\"error\"");
    const size_t fatal = text.rfind("\"level\":\"fatal\"");
    const size_t at =
        std::max(level == std::string::npos ? 0 : level, fatal == std::string::npos ? 0 : fatal);
    const size_t begin = text.find("\"msg\":\"", at);
    if (begin == std::string::npos) {
        return text.size() > 500 ? text.substr(text.size() - 500) : text;
    }
    std::string message;
    for (size_t i = begin + 7; i < text.size() && text[i] != '"'; i++) {
        if (text[i] == '\\' && i + 1 < text.size()) {
            i++;
            message += text[i] == 'n' || text[i] == 't' ? ' ' : text[i];
        } else {
            message += text[i];
        }
    }
    return message;
}

ScopedFd listen_at(int directory, const char* name, int type) {
    ScopedFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", directory, name);
    unlinkat(directory, name, 0);
    if (!fd || bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        listen(fd.get(), 16) != 0) {
        return ScopedFd();
    }
    return fd;
}

bool ConsoleSocket::open(const std::string& in_directory) {
    directory.reset(::open(in_directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const std::string name = "console-" + std::to_string(getpid());
    listener = listen_at(directory.get(), name.c_str(), SOCK_STREAM);
    path =
        "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(directory.get()) + "/" + name;
    return bool(listener);
}

ScopedFd ConsoleSocket::receive() {
    fcntl(listener.get(), F_SETFL, O_NONBLOCK);
    const ScopedFd peer(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    unlink(path.c_str());
    char name[256];
    char control[CMSG_SPACE(sizeof(int))];
    iovec text{name, sizeof name};
    msghdr message{};
    message.msg_iov = &text;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    if (!peer || recvmsg(peer.get(), &message, MSG_CMSG_CLOEXEC) < 0) {
        return ScopedFd();
    }
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header == nullptr || header->cmsg_type != SCM_RIGHTS) {
        return ScopedFd();
    }
    int fd = -1;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return ScopedFd(fd);
}

std::string read_text(const std::string& path) {
    const ScopedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::string text;
    char buffer[4096];
    ssize_t n;
    while (fd && text.size() < (1 << 20) && (n = read(fd.get(), buffer, sizeof buffer)) > 0) {
        text.append(buffer, static_cast<size_t>(n));
    }
    return text;
}

bool replace_text(const std::string& path, const std::string& text) {
    const std::string temporary = path + ".new";
    {
        const ScopedFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
        if (!fd || write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
            return false;
        }
    }
    return rename(temporary.c_str(), path.c_str()) == 0;
}

bool keep_room(const std::string& path, size_t size) {
    const ScopedFd fd(open((path + ".new").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    const std::string blanks(size, ' ');
    return fd && write(fd.get(), blanks.data(), size) == static_cast<ssize_t>(size);
}

bool replace_kept(const std::string& path, const std::string& text) {
    const std::string temporary = path + ".new";
    {
        // Over what is there: a file that is cut to nothing first has given its room away.
        const ScopedFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        if (!fd || write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
            ftruncate(fd.get(), static_cast<off_t>(text.size())) != 0) {
            return false;
        }
    }
    return rename(temporary.c_str(), path.c_str()) == 0;
}

int64_t realtime_ns() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

int64_t monotonic_ms() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1'000'000;
}

}  // namespace moat::monitor
