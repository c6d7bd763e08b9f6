#include "cri/base/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kernel/base/scoped_fd.h"

namespace moat::cri {

namespace {

constexpr size_t kMaxOut = 4 << 20;
constexpr size_t kMaxErr = 64 << 10;

struct Pipe {
    ScopedFd read_end;
    ScopedFd write_end;
};

Result<Pipe> make_pipe() {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return Error::from_errno(errno, "pipe");
    }
    return Pipe{ScopedFd(fds[0]), ScopedFd(fds[1])};
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> result;
    for (const std::string& s : strings) {
        result.push_back(const_cast<char*>(s.c_str()));
    }
    result.push_back(nullptr);
    return result;
}

/// Takes what there is; closes `fd` at its end. What exceeds `limit` is dropped; returns whether
/// something was.
bool drain(ScopedFd& fd, std::string& into, size_t limit) {
    char buffer[8192];
    const ssize_t n = read(fd.get(), buffer, sizeof(buffer));
    if (n > 0) {
        const size_t room = limit - std::min(limit, into.size());
        into.append(buffer, std::min(static_cast<size_t>(n), room));
        return static_cast<size_t>(n) > room;
    }
    if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        fd.reset();
    }
    return false;
}

void feed(ScopedFd& fd, std::string_view& left) {
    const ssize_t n = left.empty() ? 0 : write(fd.get(), left.data(), left.size());
    if (n > 0) {
        left.remove_prefix(static_cast<size_t>(n));
    }
    if (left.empty() || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        fd.reset();
    }
}

}  // namespace

Result<ProcessResult> run_process(const std::string& program, const std::vector<std::string>& args,
                                  const std::vector<std::string>& env, const std::string& input,
                                  std::chrono::milliseconds timeout) {
    Pipe in = TRY(make_pipe());
    Pipe out = TRY(make_pipe());
    Pipe err = TRY(make_pipe());
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in.read_end.get(), 0);
    posix_spawn_file_actions_adddup2(&actions, out.write_end.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, err.write_end.get(), 2);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    sigset_t defaults;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    std::vector<std::string> argv = {program};
    argv.insert(argv.end(), args.begin(), args.end());
    pid_t pid = -1;
    const int error = posix_spawn(&pid, program.c_str(), &actions, &attributes,
                                  pointers(argv).data(), pointers(env).data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (error != 0) {
        return Error::from_errno(error, "run " + program);
    }
    in.read_end.reset();
    out.write_end.reset();
    err.write_end.reset();
    const ScopedFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    fcntl(in.write_end.get(), F_SETFL, O_NONBLOCK);
    fcntl(out.read_end.get(), F_SETFL, O_NONBLOCK);
    fcntl(err.read_end.get(), F_SETFL, O_NONBLOCK);

    ProcessResult result;
    std::string_view left = input;
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    bool timed = false;
    bool flooded = false;
    bool ended = false;
    // The program's end counts, not that of its streams: a plugin may leave a daemon behind that
    // still holds them.
    while (!ended) {
        pollfd fds[] = {{pidfd.get(), POLLIN, 0},
                        {in.write_end.get(), POLLOUT, 0},
                        {out.read_end.get(), POLLIN, 0},
                        {err.read_end.get(), POLLIN, 0}};
        const auto rest = std::chrono::duration_cast<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        if (rest.count() <= 0 && !timed) {
            timed = true;
            kill(-pid, SIGKILL);
        }
        const int wait_ms = timed || flooded ? -1 : static_cast<int>(rest.count()) + 1;
        if (poll(fds, 4, wait_ms) < 0 && errno != EINTR) {
            break;
        }
        if (fds[1].revents != 0) {
            feed(in.write_end, left);
        }
        if (fds[2].revents != 0) {
            // Whoever prints without end would do so until its time is up.
            if (drain(out.read_end, result.out, kMaxOut) && !flooded) {
                flooded = true;
                kill(-pid, SIGKILL);
            }
        }
        if (fds[3].revents != 0) {
            drain(err.read_end, result.err, kMaxErr);
        }
        ended = fds[0].revents != 0;
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    for (size_t before = 1; out.read_end && before != result.out.size();) {
        before = result.out.size();
        drain(out.read_end, result.out, kMaxOut);
    }
    for (size_t before = 1; err.read_end && before != result.err.size();) {
        before = result.err.size();
        drain(err.read_end, result.err, kMaxErr);
    }
    if (timed) {
        return timed_out("run " + program + ": killed after " + std::to_string(timeout.count()) +
                         " ms");
    }
    if (flooded) {
        return Error(EFBIG, "run " + program + ": killed: it printed more than " +
                                std::to_string(kMaxOut) + " bytes");
    }
    result.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return result;
}

}  // namespace moat::cri
