#include <stdio.h>

#include <memory>

#include "runtime/cli/cli.h"
#include "runtime/container/impl.h"

namespace moat::runtime::cli {

void add_state(CLI::App& app, Cli& cli) {
    auto id = std::make_shared<std::string>();
    CLI::App* verb = app.add_subcommand("state", "print a container's OCI state");
    verb->add_option("id", *id, "the container's id")->required();
    verb->final_callback([&cli, id] {
        cli.action = [&cli, id] {
            const auto info = SentryRuntime(cli.options).state(*id);
            if (!info.ok()) {
                return cli.fail(info.error());
            }
            printf("%s\n", oci_state_json(*info).c_str());
            return 0;
        };
    });
}

}  // namespace moat::runtime::cli
