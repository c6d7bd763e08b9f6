// Processes in running containers: one moat-monitor each, which lets go of them when moatd dies.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <condition_variable>

#include "kernel/control/messages.h"
#include "runtime/container/impl.h"
#include "runtime/native/native_runtime.h"
#include "runtime/util/files.h"

namespace moat::runtime {

using control::Json;

/// One exec that moatd has started and not yet collected.
struct NativeRuntime::Exec {
    std::string container_id;
    ProcessRef monitor;
    ProcessRef process;
    ScopedFd control;  ///< our end of the monitor's socket
    std::string text;  ///< read from it and not used yet; only by who started it, then who waits

    /// A line from the monitor, without its newline; ECONNRESET at its end.
    Result<std::string> line() {
        for (;;) {
            if (const size_t end = text.find('\n'); end != std::string::npos) {
                std::string one = text.substr(0, end);
                text.erase(0, end + 1);
                return one;
            }
            char buffer[1024];
            const ssize_t n = ::read(control.get(), buffer, sizeof buffer);
            if (n > 0) {
                text.append(buffer, static_cast<size_t>(n));
            } else if (n == 0 || errno != EINTR) {
                return Error(ECONNRESET, "moat-monitor ended without an answer");
            }
        }
    }
};

namespace {

/// The OCI process of an exec: the container's own, with what the request changes.
Result<std::string> process_json(const std::string& bundle, const ExecConfig& config) {
    if (!config.process_json.empty()) {
        return config.process_json;
    }
    const std::string text = TRY(read_whole_file(bundle + "/config.json"));
    try {
        Json process = Json::parse(text).at("process");
        process["args"] = config.args;
        process["terminal"] = config.terminal;
        if (!config.env.empty()) {
            process["env"] = config.env;
        }
        for (const std::string& extra : config.extra_env) {
            const std::string key = extra.substr(0, extra.find('=') + 1);
            Json kept = Json::array();
            for (const Json& one : process["env"]) {
                if (one.get<std::string>().rfind(key, 0) != 0) {
                    kept.push_back(one);
                }
            }
            kept.push_back(extra);
            process["env"] = std::move(kept);
        }
        if (!config.cwd.empty()) {
            process["cwd"] = config.cwd;
        }
        if (config.uid) {
            process["user"]["uid"] = *config.uid;
        }
        if (config.gid) {
            process["user"]["gid"] = *config.gid;
        }
        if (!config.additional_gids.empty()) {
            process["user"]["additionalGids"] = config.additional_gids;
        }
        return process.dump();
    } catch (const Json::exception& e) {
        return Error(EINVAL, bundle + "/config.json: " + e.what());
    }
}

}  // namespace

Result<std::string> NativeRuntime::exec(const std::string& id, const ExecConfig& config) {
    const std::string step = "exec in " + id;
    const NativeContainer container = TRY_STEP(step, load_container(id));
    TRY_STEP(step, init(container));
    const std::string process = TRY_STEP(step, process_json(container.bundle, config));
    std::string exec_id;
    {
        const std::lock_guard lock(mu_);
        // Files of a moatd before us may still be in use.
        exec_id = "exec-" + std::to_string(::getpid()) + "-" + std::to_string(next_exec_++);
    }
    const std::string directory = container_directory(id);
    const ScopedFd state(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!state) {
        return Error::from_errno(errno, step + ": open " + directory);
    }
    TRY_STEP(step, replace_file(state.get(), exec_id, process, Durability::kProcess));

    const ScopedFd program = TRY_STEP(step, open_program(options_.monitor_path, "moat-monitor"));
    const ScopedFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const ScopedFd log(::open((directory + "/monitor.log").c_str(),
                              O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    int pair[2];
    if (!null || !log || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return Error::from_errno(errno, step + ": socketpair");
    }
    auto made = std::make_shared<Exec>();
    made->container_id = id;
    made->control.reset(pair[0]);
    ScopedFd theirs(pair[1]);
    SpawnRequest request;
    request.name = "moat-monitor";
    request.executable = program.get();
    request.argv = {"moat-monitor",   "exec",
                    "--program",      options_.program,
                    "--program-root", program_root(),
                    "--program-log",  directory + "/" + exec_id + ".log",
                    "--id",           id,
                    "--state",        directory,
                    "--process",      directory + "/" + exec_id};
    request.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
    const auto or_null = [&](int fd) { return fd >= 0 ? fd : null.get(); };
    if (config.terminal) {
        request.argv.push_back("--terminal");
        if (config.rows != 0 && config.columns != 0) {
            request.argv.insert(request.argv.end(), {"--rows", std::to_string(config.rows),
                                                     "--columns", std::to_string(config.columns)});
        }
        request.fds = {theirs.get(), or_null(config.stdio.console_fd)};
    } else {
        request.fds = {theirs.get(), or_null(config.stdio.stdin_fd),
                       or_null(config.stdio.stdout_fd), or_null(config.stdio.stderr_fd)};
    }
    request.stderr_fd = log.get();
    made->monitor = TRY_STEP(step, spawn(request));
    theirs.reset();
    const auto line = made->line();
    if (!line.ok() || line->rfind("pid ", 0) != 0) {
        (void)made->monitor.kill_and_wait();
        return Error(EIO,
                     step + ": " +
                         (!line.ok() ? line.error().message() : line->substr(line->find(' ') + 1)));
    }
    made->process.pid = static_cast<pid_t>(::strtol(line->c_str() + 4, nullptr, 10));
    made->process.start_time = process_start_time(made->process.pid);
    const std::lock_guard lock(mu_);
    execs_[exec_id] = std::move(made);
    return exec_id;
}

Result<std::shared_ptr<NativeRuntime::Exec>> NativeRuntime::find_exec(const std::string& exec_id) {
    const std::lock_guard lock(mu_);
    const auto it = execs_.find(exec_id);
    if (it == execs_.end()) {
        return Error(ESRCH, exec_id + ": no such process");
    }
    return it->second;
}

Result<ExitStatus> NativeRuntime::wait_exec(const std::string& id, const std::string& exec_id) {
    const std::string step = "wait for " + exec_id + " in " + id;
    const auto exec = TRY_STEP(step, find_exec(exec_id));
    const auto line = exec->line();
    (void)exec->monitor.kill_and_wait();
    {
        const std::lock_guard lock(mu_);
        execs_.erase(exec_id);
    }
    ExitStatus exit;
    long long finished = 0;
    if (!line.ok()) {
        return line.error().within(step);
    }
    if (::sscanf(line->c_str(), "exit %d %d %lld", &exit.code, &exit.signal, &finished) != 3) {
        return Error(EIO, step + ": " + *line);
    }
    exit.finished_at_ns = finished;
    return exit;
}

Status NativeRuntime::kill_exec(const std::string& id, const std::string& exec_id, int signal) {
    const std::string step = "kill " + exec_id + " in " + id;
    const auto exec = TRY_STEP(step, find_exec(exec_id));
    const ScopedFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, exec->process.pid, 0)));
    if (!pidfd || !exec->process.alive() ||
        ::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) != 0) {
        return Error(ESRCH, step + ": it does not run");
    }
    return {};
}

Status NativeRuntime::resize(const std::string& id, const std::string& exec_id, uint16_t rows,
                             uint16_t columns) {
    const std::string request = "resize " + std::to_string(rows) + " " + std::to_string(columns);
    if (exec_id.empty()) {
        TRY(check_id(id));
        return ask_monitor(id, request, {});
    }
    const auto exec = TRY_STEP("resize " + exec_id, find_exec(exec_id));
    const std::string line = request + "\n";
    if (::send(exec->control.get(), line.data(), line.size(), MSG_NOSIGNAL) < 0) {
        return Error::from_errno(errno, "resize " + exec_id);
    }
    return {};
}

}  // namespace moat::runtime
