#include <stdio.h>

#include <memory>

#include "runtime/cli/cli.h"

namespace moat::runtime::cli {

void add_stacks(CLI::App& app, Cli& cli) {
    auto id = std::make_shared<std::string>();
    CLI::App* verb =
        app.add_subcommand("stacks", "print every task of a sandbox and what it waits for");
    verb->add_option("id", *id, "a container's or the sandbox's id")->required();
    verb->final_callback([&cli, id] {
        cli.action = [&cli, id] {
            SentryRuntime runtime(cli.options);
            const auto info = runtime.state(*id);
            if (!info.ok()) {
                return cli.fail(info.error());
            }
            const auto text = runtime.stacks(info->sandbox_id);
            if (!text.ok()) {
                return cli.fail(text.error());
            }
            fputs(text->c_str(), stdout);
            return 0;
        };
    });
}

}  // namespace moat::runtime::cli
