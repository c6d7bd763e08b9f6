#include <memory>

#include "runtime/cli/cli.h"

namespace moat::runtime::cli {

void add_start(CLI::App& app, Cli& cli) {
    auto id = std::make_shared<std::string>();
    CLI::App* verb = app.add_subcommand("start", "run the process of a created container");
    verb->add_option("id", *id, "the container's id")->required();
    verb->final_callback([&cli, id] {
        cli.action = [&cli, id] { return cli.done(SentryRuntime(cli.options).start(*id)); };
    });
}

}  // namespace moat::runtime::cli
