#include "runtime/hooks/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "kernel/base/scoped_fd.h"
#include "runtime/util/files.h"

namespace moat::runtime {

namespace {

int64_t now_ms() {
    timespec now;
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

Status run_hook(const SpecHook& hook, const std::string& state_json) {
    const ScopedFd input = TRY(memory_file("moat-hook-state", state_json));
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) {
        return Error::from_errno(errno, "pipe");
    }
    ScopedFd read_end(ends[0]), write_end(ends[1]);

    std::vector<char*> argv, envp;
    for (const std::string& arg : hook.args) {
        argv.push_back(const_cast<char*>(arg.c_str()));
    }
    if (argv.empty()) {
        argv.push_back(const_cast<char*>(hook.path.c_str()));
    }
    argv.push_back(nullptr);
    for (const std::string& variable : hook.env) {
        envp.push_back(const_cast<char*>(variable.c_str()));
    }
    envp.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input.get(), 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, write_end.get(), 2);
    // `moat run` blocks the signals that it forwards; a hook starts with none blocked.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    pid_t pid;
    const int error =
        ::posix_spawn(&pid, hook.path.c_str(), &actions, &attributes, argv.data(), envp.data());
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    write_end.reset();
    if (error != 0) {
        return Error::from_errno(error, "execute it");
    }
    const ScopedFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    const int64_t deadline = hook.timeout_s == 0 ? 0 : now_ms() + hook.timeout_s * 1000ll;
    std::string tail;
    // A hook may leave a daemon behind that keeps stderr open: it is over when the process is, so
    // stderr is only drained as long as there is something to read.
    bool in_time = true;
    for (;;) {
        pollfd p[2] = {{pidfd.get(), POLLIN, 0}, {read_end.get(), POLLIN, 0}};
        const int64_t left = deadline == 0 ? -1 : std::max<int64_t>(0, deadline - now_ms());
        const int ready = ::poll(p, read_end.valid() ? 2 : 1, static_cast<int>(left));
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        if (ready == 0) {
            in_time = false;
            ::kill(pid, SIGKILL);
            break;
        }
        if (read_end.valid() && p[1].revents != 0) {
            char buffer[1024];
            const ssize_t n = ::read(read_end.get(), buffer, sizeof buffer);
            if (n <= 0) {
                read_end.reset();
            } else {
                tail.append(buffer, n);
                tail.erase(0, tail.size() > 1024 ? tail.size() - 1024 : 0);
            }
            continue;
        }
        if (p[0].revents != 0) {
            break;
        }
    }
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!in_time) {
        return Error(ETIMEDOUT, "not done after " + std::to_string(hook.timeout_s) + " s");
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return {};
    }
    while (!tail.empty() && tail.back() == '\n') {
        tail.pop_back();
    }
    return Error(EIO, (WIFEXITED(status) ? "exit code " + std::to_string(WEXITSTATUS(status))
                                         : "killed by signal " + std::to_string(WTERMSIG(status))) +
                          (tail.empty() ? "" : ": " + tail));
}

}  // namespace

Status run_hooks(const std::vector<SpecHook>& hooks, const std::string& kind,
                 const std::string& state_json) {
    for (const SpecHook& hook : hooks) {
        TRY_STEP(kind + " hook " + hook.path, run_hook(hook, state_json));
    }
    return {};
}

}  // namespace moat::runtime
