// moatd: the CRI server of a node.

#include <signal.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "cri/base/log.h"
#include "cri/config/config_file.h"
#include "cri/config/setting_table.h"
#include "cri/image_commands.h"
#include "cri/server/node.h"
#include "cri/server/server.h"
#include "kernel/base/version.h"

namespace {

using namespace moat::cri;

int fail(const moat::cri::Error& error) {
    std::fprintf(stderr, "moatd: %s\n", error.message().c_str());
    return 1;
}

int print(const std::string& text) {
    std::fputs(text.c_str(), stdout);
    return std::fflush(stdout) == 0 ? 0 : 1;
}

/// An option for each row of the setting table. The values stay text until the file has been read,
/// which they override.
std::vector<CLI::Option*> add_settings(CLI::App& app) {
    std::vector<CLI::Option*> options;
    const Settings defaults;
    for (const Setting& setting : setting_table()) {
        const std::string flag = flag_of(setting);
        std::string help = setting.help;
        if (*setting.values != 0) {
            help += std::string(", one of ") + setting.values;
        }
        if (std::holds_alternative<bool Settings::*>(setting.member)) {
            options.push_back(app.add_flag(flag)->description(help));
            continue;
        }
        CLI::Option* option =
            app.add_option(flag, CLI::callback_t([](const auto&) { return true; }), help);
        if (std::holds_alternative<std::vector<std::string> Settings::*>(setting.member)) {
            option->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
        } else {
            option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
            option->default_str(toml_value(defaults, setting));
        }
        options.push_back(option);
    }
    return options;
}

std::vector<Override> overrides_of(const std::vector<CLI::Option*>& options) {
    std::vector<Override> overrides;
    for (const CLI::Option* option : options) {
        if (option->count() > 0) {
            overrides.push_back({option->get_name(), option->results()});
        }
    }
    return overrides;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{
        "moatd serves the Kubernetes Container Runtime Interface; each pod gets its own kernel"};
    app.set_version_flag("--version", moat::kVersion);
    ConfigSource source;
    CLI::Option* config_option =
        app.add_option("--config", source.path, "TOML file with the settings below")
            ->capture_default_str();
    const std::vector<CLI::Option*> options = add_settings(app);

    ImageCommands image(app);
    CLI::App* config = app.add_subcommand("config", "the configuration file");
    config->require_subcommand(1);
    CLI::App* config_default =
        config->add_subcommand("default", "print a file with every setting, explained");
    CLI::App* config_check = config->add_subcommand("check", "read the file as moatd would");
    CLI::App* config_show =
        config->add_subcommand("show", "print the settings that file and command line make");
    for (CLI::App* command : {config, config_default, config_check, config_show}) {
        command->fallthrough();  // moatd's own options may stand behind the command, too
    }
    CLI11_PARSE(app, argc, argv);
    source.required = config_option->count() > 0 || config_check->parsed();
    source.overrides = overrides_of(options);
    if (config_default->parsed()) {
        return print(write_config(Settings()));
    }
    const auto loaded = load_settings(source);
    if (!loaded.ok()) {
        return fail(loaded.error());
    }
    const Settings& settings = *loaded;
    if (config_check->parsed()) {
        return print(source.path + ": good\n");
    }
    if (config_show->parsed()) {
        return print(write_config(settings));
    }

    // A client that goes away must not end the server; gRPC and the pipes of exec report EPIPE.
    signal(SIGPIPE, SIG_IGN);
    // Files get the modes that they are opened with.
    umask(0022);
    start_log(settings);
    if (image.parsed()) {
        return image.run(settings);
    }
    // Before any thread is made, so that all inherit it and only serve() takes them.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    const auto served = serve(settings, source);
    return served.ok() ? 0 : fail(served.error());
}
