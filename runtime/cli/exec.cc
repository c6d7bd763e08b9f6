#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include <memory>

#include "runtime/cli/cli.h"
#include "runtime/cli/foreground.h"
#include "runtime/util/files.h"

namespace moat::runtime::cli {

namespace {

/// runc's exit status when exec itself fails.
constexpr int kExecFailed = 255;

struct Exec {
    std::string id, user, process_file, console_socket, pid_file;
    ExecConfig config;
    bool detach = false;
};

/// "UID" or "UID:GID"; names are the guest's business, and only it could look them up.
Status parse_user(const std::string& text, ExecConfig& config) {
    const auto number = [&](const std::string& part) -> Result<uint32_t> {
        char* end;
        const unsigned long long value = strtoull(part.c_str(), &end, 10);
        if (part.empty() || part[0] == '-' || *end != '\0' || value > 0xffffffffull) {
            return Error(EINVAL, "user \"" + text + "\": expected UID or UID:GID as numbers");
        }
        return static_cast<uint32_t>(value);
    };
    const size_t colon = text.find(':');
    config.uid = TRY(number(text.substr(0, colon)));
    if (colon != std::string::npos) {
        config.gid = TRY(number(text.substr(colon + 1)));
    }
    return {};
}

Result<int> run_exec(Cli& cli, Exec& exec) {
    SentryRuntime runtime(cli.options);
    ExecConfig& config = exec.config;
    bool terminal = config.terminal;
    if (!exec.user.empty()) {
        TRY(parse_user(exec.user, config));
    }
    if (!exec.process_file.empty()) {
        config.process_json = TRY(read_whole_file(exec.process_file));
        terminal = TRY(parse_process(config.process_json, exec.process_file)).terminal;
    }
    const auto write_pid = [&]() -> Status {
        if (!exec.pid_file.empty()) {
            const auto info = TRY(runtime.state(exec.id));
            const ScopedFd fd(
                ::open(exec.pid_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
            if (!fd) {
                return Error::from_errno(errno, "write " + exec.pid_file);
            }
            TRY(write_all(fd.get(), std::to_string(info.sentry_pid)));
        }
        return {};
    };
    Pty pty;
    if (terminal && !exec.console_socket.empty()) {
        pty = TRY(open_pty());
        TRY(send_console(exec.console_socket, pty.master.get()));
        pty.master.reset();
        config.stdio.console_fd = pty.slave.get();
    }
    if (exec.detach) {
        if (!terminal) {
            config.stdio = Stdio{0, 1, 2, -1, -1};
        } else if (!pty.slave) {
            return Error(EINVAL, "exec: --detach with a terminal needs --console-socket");
        }
        TRY(runtime.exec(exec.id, config));
        TRY(write_pid());
        return 0;
    }
    Foreground foreground;
    if (terminal && !pty.slave) {
        TRY(foreground.open_terminal());
    }
    if (!pty.slave) {
        config.stdio = foreground.stdio();
    }
    const std::string exec_id = TRY(runtime.exec(exec.id, config));
    pty.slave.reset();
    TRY(write_pid());
    const auto exit =
        TRY(foreground.run({[&] { return runtime.wait_exec(exec.id, exec_id); },
                            [&](int signal) { (void)runtime.kill_exec(exec.id, exec_id, signal); },
                            [&](uint16_t rows, uint16_t columns) {
                                (void)runtime.resize(exec.id, exec_id, rows, columns);
                            }}));
    return exit.shell_code();
}

}  // namespace

void add_exec(CLI::App& app, Cli& cli) {
    auto exec = std::make_shared<Exec>();
    CLI::App* verb = app.add_subcommand("exec", "run another process in a running container");
    verb->add_option("id", exec->id, "the container's id")->required();
    verb->add_flag("-t,--tty", exec->config.terminal, "give it a terminal");
    verb->add_flag("-d,--detach", exec->detach, "do not wait for it");
    verb->add_option("-p,--process", exec->process_file, "file with an OCI process object");
    verb->add_option("-u,--user", exec->user, "UID[:GID]");
    verb->add_option("--cwd", exec->config.cwd, "working directory");
    verb->add_option("-e,--env", exec->config.extra_env, "NAME=VALUE, added to the container's")
        ->allow_extra_args(false);
    verb->add_option("-g,--additional-gids", exec->config.additional_gids, "supplementary groups")
        ->allow_extra_args(false);
    verb->add_option("--console-socket", exec->console_socket,
                     "unix socket that receives the terminal's master");
    verb->add_option("--pid-file", exec->pid_file, "where the sentry's host pid is written");
    verb->add_option("command", exec->config.args, "the program and its arguments");
    verb->final_callback([&cli, exec] {
        cli.action = [&cli, exec] {
            const auto status = run_exec(cli, *exec);
            if (status.ok()) {
                return *status;
            }
            cli.fail(status.error());
            return kExecFailed;
        };
    });
}

}  // namespace moat::runtime::cli
