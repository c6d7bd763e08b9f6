#include <errno.h>

#include <memory>

#include "runtime/cli/cli.h"
#include "runtime/cli/foreground.h"
#include "runtime/cli/watcher.h"
#include "runtime/util/files.h"

namespace moat::runtime::cli {

int run_container(Cli& cli, const RunConfig& config) {
    SentryRuntime runtime(cli.options);
    const std::string& id = config.create.id;
    CreateConfig create = config.create;
    const auto abandon = [&](const Error& error) {
        (void)runtime.remove(id, true);
        return cli.fail(error);
    };
    if (config.detach) {
        create.stdio = Stdio{0, 1, 2, -1, -1};
        if (const auto made = runtime.create(create); !made.ok()) {
            return cli.fail(made.error());
        }
        if (const auto started = runtime.start(id); !started.ok()) {
            return abandon(started.error());
        }
        return 0;
    }
    if (runtime.state(id).ok()) {  // somebody else's: not to be cleaned up by our watcher
        return cli.fail(Error(EEXIST, "run " + id + ": container " + id + " exists already"));
    }
    Foreground foreground;
    const auto watcher = Watcher::start({cli.options, id, config.keep, config.scratch});
    if (!watcher.ok()) {
        return cli.fail(watcher.error().within("run " + id));
    }
    if (config.terminal && create.console_socket.empty()) {
        if (const auto opened = foreground.open_terminal(); !opened.ok()) {
            return cli.fail(opened.error());
        }
    }
    create.stdio = foreground.stdio();
    if (const auto made = runtime.create(create); !made.ok()) {
        return cli.fail(made.error());
    }
    if (const auto started = runtime.start(id); !started.ok()) {
        return abandon(started.error());
    }
    const auto exit = foreground.run(
        {[&] { return runtime.wait(id); }, [&](int signal) { (void)runtime.interrupt(id, signal); },
         [&](uint16_t rows, uint16_t columns) { (void)runtime.resize(id, "", rows, columns); }});
    if (!exit.ok()) {
        return abandon(exit.error());
    }
    if (!config.keep) {
        if (const auto removed = runtime.remove(id, true); !removed.ok()) {
            cli.fail(removed.error());  // said, but the program's own status is the answer
        }
    }
    return exit->shell_code();
}

void add_run(CLI::App& app, Cli& cli) {
    auto config = std::make_shared<RunConfig>();
    config->create.bundle = ".";
    auto preserve_fds = std::make_shared<int>(0);
    CLI::App* verb = app.add_subcommand("run", "create, start, wait for and delete a container");
    verb->add_option("id", config->create.id, "the container's id")->required();
    verb->add_option("-b,--bundle", config->create.bundle, "directory with config.json");
    verb->add_option("--console-socket", config->create.console_socket,
                     "unix socket that receives the terminal's master");
    verb->add_option("--pid-file", config->create.pid_file,
                     "where the sentry's host pid is written");
    verb->add_flag("-d,--detach", config->detach, "do not wait for it");
    verb->add_flag("--keep", config->keep, "do not delete it afterwards");
    accept_flag(*verb, "--no-pivot", "the sandbox does not pivot the container's root");
    accept_flag(*verb, "--no-new-keyring", "a sandbox has no keyring of the host");
    accept_flag(*verb, "--no-subreaper", "nothing needs one");
    verb->add_option("--preserve-fds", *preserve_fds, "only 0 is possible");
    verb->final_callback([&cli, config, preserve_fds] {
        cli.action = [&cli, config, preserve_fds] {
            if (*preserve_fds != 0) {
                return cli.fail(Error(ENOTSUP, "run: --preserve-fds is not built"));
            }
            const auto spec = load_spec(config->create.bundle);
            if (!spec.ok()) {
                return cli.fail(spec.error().within("run " + config->create.id));
            }
            config->terminal = spec->process.terminal;
            return run_container(cli, *config);
        };
    });
}

}  // namespace moat::runtime::cli
