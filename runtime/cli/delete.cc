#include <errno.h>
#include <signal.h>

#include <memory>

#include "runtime/cli/cli.h"

namespace moat::runtime::cli {

void add_delete(CLI::App& app, Cli& cli) {
    struct Delete {
        std::string id;
        bool force = false;
    };
    auto config = std::make_shared<Delete>();
    CLI::App* verb = app.add_subcommand("delete", "remove a stopped container");
    verb->add_option("id", config->id, "the container's id")->required();
    verb->add_flag("-f,--force", config->force,
                   "kill it first if it runs; success if it is not there");
    verb->final_callback([&cli, config] {
        cli.action = [&cli, config] {
            SentryRuntime runtime(cli.options);
            bool force = config->force;
            if (!force) {
                // As runc does: one that never ran needs no killing.
                const auto info = runtime.state(config->id);
                force = info.ok() && info->state == ContainerState::kCreated;
            }
            const auto removed = runtime.remove(config->id, force);
            if (!removed.ok() && config->force && removed.error().code() == ENOENT) {
                return 0;
            }
            return cli.done(removed);
        };
    });
}

}  // namespace moat::runtime::cli
