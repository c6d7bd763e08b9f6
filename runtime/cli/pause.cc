#include <memory>

#include "runtime/cli/cli.h"

namespace moat::runtime::cli {

void add_pause(CLI::App& app, Cli& cli) {
    auto id = std::make_shared<std::string>();
    CLI::App* pause = app.add_subcommand("pause", "stop every process of a container");
    pause->add_option("id", *id, "the container's id")->required();
    pause->final_callback([&cli, id] {
        cli.action = [&cli, id] { return cli.done(SentryRuntime(cli.options).pause(*id)); };
    });
    CLI::App* resume = app.add_subcommand("resume", "let a paused container go on");
    resume->add_option("id", *id, "the container's id")->required();
    resume->final_callback([&cli, id] {
        cli.action = [&cli, id] { return cli.done(SentryRuntime(cli.options).resume(*id)); };
    });
}

}  // namespace moat::runtime::cli
