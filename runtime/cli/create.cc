#include <memory>

#include "runtime/cli/cli.h"

namespace moat::runtime::cli {

void add_create(CLI::App& app, Cli& cli) {
    auto config = std::make_shared<CreateConfig>();
    config->bundle = ".";
    auto preserve_fds = std::make_shared<int>(0);
    CLI::App* verb = app.add_subcommand("create", "make a container; start runs it");
    verb->add_option("id", config->id, "the container's id")->required();
    verb->add_option("-b,--bundle", config->bundle, "directory with config.json");
    verb->add_option("--console-socket", config->console_socket,
                     "unix socket that receives the terminal's master");
    verb->add_option("--pid-file", config->pid_file, "where the sentry's host pid is written");
    accept_flag(*verb, "--no-pivot", "the sandbox does not pivot the container's root");
    accept_flag(*verb, "--no-new-keyring", "a sandbox has no keyring of the host");
    verb->add_option("--preserve-fds", *preserve_fds, "only 0 is possible");
    verb->final_callback([&cli, config, preserve_fds] {
        cli.action = [&cli, config, preserve_fds] {
            if (*preserve_fds != 0) {
                return cli.fail(Error(ENOTSUP, "create: --preserve-fds is not built"));
            }
            config->stdio = Stdio{0, 1, 2, -1, -1};
            return cli.done(SentryRuntime(cli.options).create(*config));
        };
    });
}

}  // namespace moat::runtime::cli
