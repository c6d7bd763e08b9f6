// moat: the OCI runtime on the command line.

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <string_view>

#include "kernel/base/log.h"
#include "runtime/cli/cli.h"
#include "runtime/cli/image.h"

namespace {

using namespace moat::runtime;

/// `exec` and `do` end in somebody else's command line. CLI11 would go on looking for our options
/// in it, so "--" is put before it unless the caller did.
std::vector<std::string> mark_command(const CLI::App& app, int argc, char** argv) {
    std::vector<std::string> args(argv + 1, argv + argc);
    const CLI::App* current = &app;
    int ids = 0;  // positional arguments of ours before the command
    for (size_t i = 0; i < args.size(); i++) {
        const std::string& arg = args[i];
        if (arg == "--") {
            return args;
        }
        if (arg.size() > 1 && arg[0] == '-') {
            const CLI::Option* option = current->get_option_no_throw(arg);
            if (option != nullptr && option->get_items_expected_max() > 0) {
                i++;  // its value
            }
        } else if (current == &app) {
            if (arg != "exec" && arg != "do") {
                return args;
            }
            current = app.get_subcommand(arg);
            ids = arg == "exec" ? 1 : 0;
        } else if (ids-- == 0) {
            args.insert(args.begin() + i, "--");
            return args;
        }
    }
    return args;
}

int run(int argc, char** argv) {
    cli::Cli cli;
    CLI::App app("moat runs OCI containers, each pod in a kernel of its own.", "moat");
    app.set_version_flag("-v,--version", "moat version 0.1.0\nspec: 1.2.0");
    app.add_option("--root", cli.options.state_root, "directory of all state");
    app.add_option("--log", cli.log, "file that gets errors, too");
    app.add_option("--log-format", cli.log_format, "text or json")
        ->check(CLI::IsMember({"text", "json"}));
    app.add_flag("--debug", cli.debug, "say more, and let the sentry say more");
    app.add_flag("--strace", cli.options.strace, "the sentry logs every guest system call");
    app.add_flag("--systemd-cgroup", cli.systemd_cgroup,
                 "accepted; the systemd form of a cgroups path is always understood");
    std::string ignored;
    app.add_option("--rootless", ignored, "accepted; moat needs root");
    app.add_option("--criu", ignored, "accepted; there is no checkpointing");
    app.add_option("--sentry", cli.options.sentry_path, "the moat-sentry to use");
    app.add_option("--gofer", cli.options.gofer_path, "the moat-gofer to use");
    // For the list of verbs: main() has taken it away before.
    app.add_subcommand("image", "load, list, pull, tag, remove, prune images: moatd's own command");
    app.require_subcommand(1);
    for (const auto add : {cli::add_create, cli::add_start, cli::add_run, cli::add_state,
                           cli::add_kill, cli::add_delete, cli::add_exec, cli::add_list,
                           cli::add_ps, cli::add_wait, cli::add_spec, cli::add_do, cli::add_pause,
                           cli::add_events, cli::add_update, cli::add_features, cli::add_stacks}) {
        add(app, cli);
    }
    std::vector<std::string> args = mark_command(app, argc, argv);
    std::reverse(args.begin(), args.end());  // as CLI11 wants them
    try {
        app.parse(std::move(args));
    } catch (const CLI::ParseError& error) {
        return app.exit(error);
    }
    moat::log_configure(2, cli.debug ? moat::LogLevel::kDebug : moat::LogLevel::kWarning, "moat");
    if (cli.debug) {
        cli.options.log_level = "debug";
    }
    return cli.action();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc > 1 && std::string_view(argv[1]) == "image") {
        return cli::run_image_command(argv + 1);
    }
    return run(argc, argv);
}
