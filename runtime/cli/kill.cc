#include <memory>

#include "runtime/cli/cli.h"

namespace moat::runtime::cli {

void add_kill(CLI::App& app, Cli& cli) {
    struct Kill {
        std::string id;
        std::string signal = "TERM";
        bool all = false;
    };
    auto kill = std::make_shared<Kill>();
    CLI::App* verb = app.add_subcommand("kill", "send a signal to a container's first process");
    verb->add_option("id", kill->id, "the container's id")->required();
    verb->add_option("signal", kill->signal, "name or number; TERM");
    verb->add_flag("-a,--all", kill->all, "to every process of the container");
    verb->final_callback([&cli, kill] {
        cli.action = [&cli, kill] {
            const auto signal = parse_signal(kill->signal);
            if (!signal.ok()) {
                return cli.fail(signal.error());
            }
            return cli.done(SentryRuntime(cli.options).kill(kill->id, *signal, kill->all));
        };
    });
}

}  // namespace moat::runtime::cli
