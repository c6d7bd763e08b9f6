#include <stdio.h>

#include <memory>

#include "runtime/cli/cli.h"
#include "runtime/spec/fields.h"

namespace moat::runtime::cli {

namespace {

int print_processes(Cli& cli, const std::string& id, const std::string& format) {
    const auto all = SentryRuntime(cli.options).processes(id);
    if (!all.ok()) {
        return cli.fail(all.error());
    }
    if (format == "json") {
        Json json = Json::array();  // pids only, as runc prints them
        for (const ProcessInfo& process : *all) {
            json.push_back(process.pid);
        }
        printf("%s\n", json.dump().c_str());
        return 0;
    }
    printf("%-8s %-8s %-8s %-2s %-9s %-9s %s\n", "UID", "PID", "PPID", "S", "RSS", "TIME", "CMD");
    for (const ProcessInfo& p : *all) {
        const unsigned long long ms = p.cpu_ns / 1000000;
        char time[32];
        snprintf(time, sizeof time, "%llu.%03llus", ms / 1000, ms % 1000);
        printf("%-8u %-8d %-8d %-2s %-9s %-9s %s\n", p.uid, p.pid, p.ppid, p.state.c_str(),
               (std::to_string(p.rss_bytes >> 10) + "K").c_str(), time, p.command.c_str());
    }
    return 0;
}

}  // namespace

void add_ps(CLI::App& app, Cli& cli) {
    struct Ps {
        std::string id, format = "table";
    };
    auto config = std::make_shared<Ps>();
    CLI::App* verb = app.add_subcommand("ps", "list the processes of a container, as it sees them");
    verb->add_option("-f,--format", config->format, "table or json")
        ->check(CLI::IsMember({"table", "json"}));
    verb->add_option("id", config->id, "the container's id")->required();
    verb->final_callback([&cli, config] {
        cli.action = [&cli, config] { return print_processes(cli, config->id, config->format); };
    });
}

}  // namespace moat::runtime::cli
