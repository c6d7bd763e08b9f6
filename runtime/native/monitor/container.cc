#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/native/monitor/monitor.h"
#include "runtime/native/monitor/streams.h"

namespace moat::monitor {

namespace {

/// For what the dead container's processes may have handed to others.
constexpr int64_t kDrainMs = 5000;

struct Pipe {
    ScopedFd read_end, write_end;
    bool open() {
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) != 0) {
            return false;
        }
        read_end.reset(fds[0]);
        write_end.reset(fds[1]);
        return true;
    }
};

/// SIGKILL to all that is left in the container's cgroup: processes of a pod's shared process
/// namespace outlive the container's first one otherwise.
bool kill_rest(const Options& options) {
    bool any = false;
    for (const std::string& directory : options.cgroup) {
        const std::string text = read_text(directory + "/cgroup.procs");
        for (const char* p = text.c_str(); *p != '\0';) {
            char* end;
            const long pid = strtol(p, &end, 10);
            if (end == p) {
                break;
            }
            any = (pid > 0 && kill(static_cast<pid_t>(pid), SIGKILL) == 0) || any;
            p = *end == '\n' ? end + 1 : end;
        }
    }
    return any;
}

bool was_oom_killed(const Options& options) {
    for (const std::string& directory : options.cgroup) {
        for (const char* file : {"/memory.oom_control", "/memory.events"}) {
            const std::string text = read_text(directory + file);
            const size_t at = text.find("oom_kill ");
            if (at != std::string::npos && atol(text.c_str() + at + 9) > 0) {
                return true;
            }
        }
    }
    return false;
}

/// Field 22 of /proc/PID/stat: with the pid it names a process for good.
std::string start_time(const std::string& stat) {
    const std::string text = read_text(stat);
    size_t at = text.rfind(')');  // the end of field 2
    for (int field = 2; field < 22 && at != std::string::npos; field++) {
        at = text.find(' ', at + 1);
    }
    return at == std::string::npos ? "0" : text.substr(at + 1, text.find(' ', at + 1) - at - 1);
}

constexpr size_t kExitFileBytes = 200;
constexpr fsblkcnt_t kFewBlocks = 16;

class ContainerMonitor {
  public:
    explicit ContainerMonitor(const Options& options)
        : options_(options), streams_(ScopedFd(options.log ? 4 : -1)) {}

    int run() {
        signals_ = child_signals();
        const ScopedFd state(open(options_.state.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        listener_ = listen_at(state.get(), "control.sock", SOCK_SEQPACKET);
        if (!signals_ || !listener_) {
            return fail(std::string("control socket: ") + strerror(errno));
        }
        if (!replace_text(options_.events + "/" + options_.id + ".monitor",
                          std::to_string(getpid()) + " " + start_time("/proc/self/stat"))) {
            return fail(std::string("write the monitor's file: ") + strerror(errno));
        }
        if (!keep_room(exit_file(), kExitFileBytes)) {
            return fail(std::string("keep room for the exit status: ") + strerror(errno));
        }
        if (const std::string failed = prepare(); !failed.empty()) {
            return fail(failed);
        }
        send_text(kAnswerFd, "ready\n");
        close(kAnswerFd);
        serve();
        return 0;
    }

  private:
    int fail(const std::string& what) {
        send_text(kAnswerFd, "error " + what + "\n");
        return 1;
    }

    /// What attaches and the log need is there before the container runs. Returns what is wrong.
    std::string prepare() {
        if (options_.terminal) {
            return "";  // runc makes it
        }
        if (!out_.open() || !err_.open() || (options_.stdin && !in_.open())) {
            return std::string("pipe: ") + strerror(errno);
        }
        streams_.set_output(LogStream::kStdout, std::move(out_.read_end));
        streams_.set_output(LogStream::kStderr, std::move(err_.read_end));
        if (options_.stdin) {
            streams_.set_input(std::move(in_.write_end), options_.stdin_once);
        }
        return "";
    }

    /// Creates the container and starts it. Returns what is wrong; then it has ended.
    std::string start() {
        if (started_) {
            return "it has been started already";
        }
        started_ = true;
        // Whoever finds this and no `init` waits for us.
        if (!replace_text(options_.state + "/starting", "")) {
            return std::string("write ") + options_.state + "/starting: " + strerror(errno);
        }
        ConsoleSocket console;
        std::vector<std::string> arguments = {
            "run", "--detach", "--bundle", options_.bundle, "--pid-file", options_.state + "/pid"};
        StdioFds stdio;
        if (options_.terminal) {
            if (!console.open(options_.state)) {
                return std::string("console socket: ") + strerror(errno);
            }
            arguments.insert(arguments.end(), {"--console-socket", console.path});
        } else {
            stdio = {in_.read_end.get(), out_.write_end.get(), err_.write_end.get()};
        }
        arguments.push_back(options_.id);
        const std::string what = options_.program.path + " run: ";
        const int status = monitor::run(options_.program, arguments, stdio);
        for (Pipe* const pipe : {&in_, &out_, &err_}) {
            pipe->read_end.reset();
            pipe->write_end.reset();
        }
        if (status != 0) {
            std::string why = last_error(options_.program);
            if (why.empty()) {
                why = "exit status " + std::to_string(status);
            }
            // The file in which it would have said why is on the same file system, and of some of
            // its own files it loses the reason.
            struct statvfs room {};
            if (why.find("no space left on device") == std::string::npos &&
                statvfs(options_.state.c_str(), &room) == 0 && room.f_bavail < kFewBlocks) {
                why += ", no space left on device: " + options_.state;
            }
            return what + why;
        }
        init_ = static_cast<pid_t>(atoi(read_text(options_.state + "/pid").c_str()));
        if (init_ <= 0) {
            return what + "no pid in its pid file";
        }
        if (options_.terminal) {
            terminal_ = console.receive();
            if (!terminal_) {
                kill(init_, SIGKILL);
                return what + "sent no terminal";
            }
            streams_.set_output(LogStream::kStdout,
                                ScopedFd(fcntl(terminal_.get(), F_DUPFD_CLOEXEC, 3)));
            streams_.set_input(ScopedFd(fcntl(terminal_.get(), F_DUPFD_CLOEXEC, 3)), false);
        }
        // It may have ended, and is then a zombie of ours.
        if (!replace_text(options_.state + "/init",
                          std::to_string(init_) + " " +
                              start_time("/proc/" + std::to_string(init_) + "/stat"))) {
            kill(init_, SIGKILL);
            return std::string("write ") + options_.state + "/init: " + strerror(errno);
        }
        return "";
    }

    void serve() {
        int status = 0;
        int64_t ended_ns = 0;
        int64_t deadline = -1;
        bool told = false;
        for (;;) {
            if (ended_ns != 0 && !told && (streams_.ended() || monotonic_ms() >= deadline)) {
                streams_.give_up();
                tell(status, ended_ns);
                told = true;
            }
            std::vector<pollfd> fds = {{signals_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
            int timeout = streams_.prepare(fds);
            if (told && streams_.delivered()) {
                return;
            }
            if (ended_ns != 0 && !told) {
                // A process that is being born escapes one look at the list.
                timeout = kill_rest(options_) ? 5 : 100;
            }
            if (poll(fds.data(), fds.size(), timeout) < 0) {
                continue;
            }
            streams_.handle(fds.data() + 2);
            if (fds[1].revents != 0) {
                answer();
            }
            // Behind the answer: a process that has ended at once is known by its pid only then.
            if (fds[0].revents != 0 && reap(signals_.get(), init_, status)) {
                ended_ns = realtime_ns();
                deadline = monotonic_ms() + kDrainMs;
            }
            if (failed_ && ended_ns == 0) {
                status = 128 << 8;
                ended_ns = realtime_ns();
                deadline = monotonic_ms();
            }
        }
    }

    std::string exit_file() const { return options_.events + "/" + options_.id + ".exit"; }

    void tell(int status, int64_t ended_ns) {
        const bool signalled = WIFSIGNALED(status);
        const bool oom = signalled && WTERMSIG(status) == SIGKILL && was_oom_killed(options_);
        char text[kExitFileBytes];
        snprintf(text, sizeof text,
                 "{\"code\":%d,\"signal\":%d,\"oom\":%s,\"finished_at_ns\":%lld}\n",
                 signalled ? 0 : WEXITSTATUS(status), signalled ? WTERMSIG(status) : 0,
                 oom ? "true" : "false", static_cast<long long>(ended_ns));
        if (!replace_kept(exit_file(), text)) {
            fprintf(stderr, "exit status of %s: %s: %s", options_.id.c_str(), strerror(errno),
                    text);
        }
    }

    /// One request a connection: a line of text, with descriptors.
    void answer() {
        const ScopedFd peer(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        // moatd sends at once; a peer that does not must not hold the container's output up.
        const timeval patience{1, 0};
        setsockopt(peer.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        char text[256];
        char control[CMSG_SPACE(3 * sizeof(int))];
        iovec vector{text, sizeof text - 1};
        msghdr message{};
        message.msg_iov = &vector;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        const ssize_t n = recvmsg(peer.get(), &message, MSG_CMSG_CLOEXEC);
        if (n <= 0) {
            return;
        }
        text[n] = '\0';
        std::vector<ScopedFd> fds;
        const cmsghdr* header = CMSG_FIRSTHDR(&message);
        if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
            const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (size_t i = 0; i < count; i++) {
                int fd;
                memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
                fds.emplace_back(fd);
            }
        }
        send_text(peer.get(), handle(text, fds));
    }

    std::string handle(const std::string& request, std::vector<ScopedFd>& fds) {
        unsigned rows, columns;
        if (request == "start") {
            const std::string wrong = start();
            failed_ = !wrong.empty();
            return failed_ ? "error " + wrong : "ok";
        }
        if (request == "reopen" && fds.size() == 1) {
            streams_.reopen(std::move(fds[0]));
            return "ok";
        }
        if (sscanf(request.c_str(), "resize %u %u", &rows, &columns) == 2) {
            if (!terminal_) {
                return "error it has no terminal";
            }
            set_window(terminal_.get(), rows, columns);
            return "ok";
        }
        // "attach" and a letter for each descriptor: i, o, e.
        if (request.rfind("attach ", 0) == 0 && request.size() == 7 + fds.size()) {
            ScopedFd in, out, err;
            for (size_t i = 0; i < fds.size(); i++) {
                (request[7 + i] == 'i'   ? in
                 : request[7 + i] == 'o' ? out
                                         : err) = std::move(fds[i]);
            }
            if (err && terminal_) {
                return "error stderr: it has a terminal";
            }
            streams_.attach(std::move(in), std::move(out), std::move(err));
            return "ok";
        }
        return "error unknown request";
    }

    const Options& options_;
    Streams streams_;
    ScopedFd signals_, listener_, terminal_;
    Pipe in_, out_, err_;  ///< the ends that the container gets, until it has them
    bool started_ = false;
    bool failed_ = false;
    pid_t init_ = 0;  ///< 0: none yet
};

}  // namespace

int monitor_container(const Options& options) { return ContainerMonitor(options).run(); }

}  // namespace moat::monitor
