#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <thread>

#include "cri/containers/container_manager.h"
#include "runtime/runtime.h"

namespace moat::cri {

namespace {

/// How long a killed process may take to be reported.
constexpr std::chrono::milliseconds kKillPatience{5000};

/// What the thread that waits for the process's end leaves behind.
struct Wait {
    ScopedFd ended{eventfd(0, EFD_CLOEXEC)};  ///< readable once `exit` is set
    runtime::Result<control::ExitStatus> exit = Error(ECANCELED, "nobody has waited");
};

struct Output {
    ScopedFd read_end;
    ScopedFd write_end;
    std::string data;

    Status open() {
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) != 0) {
            return Error::from_errno(errno, "pipe");
        }
        read_end.reset(fds[0]);
        write_end.reset(fds[1]);
        fcntl(fds[0], F_SETFL, O_NONBLOCK);
        return {};
    }

    /// Takes what is in the pipe now, dropping what is over the limit: a guest that writes on must
    /// not block, and must not fill moatd's memory either.
    void drain() {
        char buffer[65536];
        while (read_end) {
            const ssize_t n = read(read_end.get(), buffer, sizeof(buffer));
            if (n > 0) {
                data.append(buffer,
                            std::min(static_cast<size_t>(n), kExecOutputLimit - data.size()));
            } else if (n == 0) {
                read_end.reset();
            } else if (errno != EINTR) {
                return;
            }
        }
    }
};

}  // namespace

Result<ExecResult> ContainerManager::exec_sync(const std::string& id,
                                               const std::vector<std::string>& command,
                                               std::chrono::seconds timeout) {
    if (command.empty()) {
        return invalid_argument("cmd: empty");
    }
    if (timeout.count() < 0) {
        return invalid_argument("timeout: negative");
    }
    const ContainerPtr container = TRY(find(id));
    const std::shared_ptr<char> use = container->in_use;
    const std::string step = "container " + container->id + ": exec";
    if (container->snapshot().phase != ContainerPhase::kRunning) {
        return wrong_state(step + ": it is not running");
    }
    Output out;
    Output err;
    TRY_HOST(step, out.open());
    TRY_HOST(step, err.open());
    // Shared with the waiter, which a sentry that never answers would keep for ever.
    const auto wait = std::make_shared<Wait>();
    if (!wait->ended) {
        return host_error(Error::from_errno(errno, "eventfd"), step);
    }
    runtime::ExecConfig config;
    config.args = command;
    config.stdio.stdout_fd = out.write_end.get();
    config.stdio.stderr_fd = err.write_end.get();
    const std::string exec_id = TRY_HOST(step, container->runtime.exec(container->id, config));
    out.write_end.reset();
    err.write_end.reset();

    std::thread([wait, container, exec_id, use] {
        wait->exit = container->runtime.wait_exec(container->id, exec_id);
        eventfd_write(wait->ended.get(), 1);
    }).detach();
    // A clock cannot be asked for the largest number of seconds later.
    const auto deadline = std::chrono::steady_clock::now() +
                          std::min<std::chrono::seconds>(timeout, std::chrono::hours(24 * 365));
    bool timed = false;
    for (bool done = false; !done;) {
        pollfd fds[] = {{wait->ended.get(), POLLIN, 0},
                        {out.read_end.get(), POLLIN, 0},
                        {err.read_end.get(), POLLIN, 0}};
        int wait_ms = -1;
        if (timeout.count() > 0 && !timed) {
            const auto rest = std::chrono::duration_cast<std::chrono::milliseconds>(
                deadline - std::chrono::steady_clock::now());
            if (rest.count() <= 0) {
                timed = true;
                // Its end, which the waiter reports, ends the loop; or, if that does not come, our
                // patience.
                (void)container->runtime.kill_exec(container->id, exec_id, 9);
                continue;
            }
            wait_ms = static_cast<int>(std::min<int64_t>(rest.count() + 1, 1 << 30));
        } else if (timed) {
            wait_ms = static_cast<int>(kKillPatience.count());
        }
        const int ready = poll(fds, 3, wait_ms);
        done = fds[0].revents != 0 || (timed && ready == 0);
        // At the end: what the process wrote is in the pipes by now. What its children still hold
        // open is not waited for.
        out.drain();
        err.drain();
    }
    if (timed) {
        return timed_out(step + ": killed: not done in " + std::to_string(timeout.count()) + " s");
    }
    if (!wait->exit.ok()) {
        return host_error(wait->exit.error(), step);
    }
    return ExecResult{std::move(out.data), std::move(err.data), wait->exit->shell_code()};
}

}  // namespace moat::cri
