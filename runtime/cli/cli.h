#pragma once

// The command line. One file a verb; each add_*() declares its options and sets `action`.

#include <CLI/App.hpp>
#include <functional>
#include <string>
#include <vector>

#include "runtime/sentry_runtime.h"

namespace moat::runtime::cli {

struct Cli {
    Options options;
    std::string log;  ///< --log: errors go here too
    std::string log_format = "text";
    bool debug = false;
    bool systemd_cgroup = false;  ///< accepted; both forms of cgroupsPath are always understood
    std::function<int()> action;  ///< of the verb that was named; its result is the exit status

    /// Reports on stderr and in --log; returns the exit status 1.
    int fail(const Error& error) const;
    int done(const Status& status) const { return status.ok() ? 0 : fail(status.error()); }
};

void add_create(CLI::App& app, Cli& cli);
void add_delete(CLI::App& app, Cli& cli);
void add_do(CLI::App& app, Cli& cli);
void add_events(CLI::App& app, Cli& cli);
void add_exec(CLI::App& app, Cli& cli);
void add_features(CLI::App& app, Cli& cli);
void add_kill(CLI::App& app, Cli& cli);
void add_list(CLI::App& app, Cli& cli);
void add_pause(CLI::App& app, Cli& cli);
void add_ps(CLI::App& app, Cli& cli);
void add_run(CLI::App& app, Cli& cli);
void add_spec(CLI::App& app, Cli& cli);
void add_stacks(CLI::App& app, Cli& cli);
void add_start(CLI::App& app, Cli& cli);
void add_state(CLI::App& app, Cli& cli);
void add_update(CLI::App& app, Cli& cli);
void add_wait(CLI::App& app, Cli& cli);

/// An option of runc's command line that has nothing to do here, with the reason why.
inline void accept_flag(CLI::App& app, const std::string& name, const std::string& why) {
    app.add_flag(name)->description("accepted; " + why);
}

/// A signal by name ("KILL", "SIGKILL") or number; EINVAL.
Result<int> parse_signal(const std::string& text);
/// "2026-01-02T03:04:05.000000006Z"
std::string rfc3339(int64_t ns);

struct RunConfig {
    CreateConfig create;
    bool detach = false;
    bool keep = false;      ///< do not delete it afterwards
    bool terminal = false;  ///< of the process, when no console socket is given
    std::string scratch;    ///< a directory that goes when we are killed; may be empty
};
/// Create, start, and unless detached: pass signals and terminal on, wait, delete. Returns the exit
/// status of `moat run`.
int run_container(Cli& cli, const RunConfig& config);

}  // namespace moat::runtime::cli
