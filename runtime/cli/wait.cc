#include <stdio.h>

#include <memory>

#include "runtime/cli/cli.h"
#include "runtime/spec/fields.h"

namespace moat::runtime::cli {

void add_wait(CLI::App& app, Cli& cli) {
    auto id = std::make_shared<std::string>();
    CLI::App* verb =
        app.add_subcommand("wait", "wait for a container's end; prints its exit status");
    verb->add_option("id", *id, "the container's id")->required();
    verb->final_callback([&cli, id] {
        cli.action = [&cli, id] {
            const auto exit = SentryRuntime(cli.options).wait(*id);
            if (!exit.ok()) {
                return cli.fail(exit.error());
            }
            printf("%s\n", Json{{"id", *id}, {"exitStatus", exit->shell_code()}}.dump().c_str());
            return 0;
        };
    });
}

}  // namespace moat::runtime::cli
