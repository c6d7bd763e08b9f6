#include <stdio.h>

#include <memory>

#include "runtime/cli/cli.h"
#include "runtime/container/impl.h"
#include "runtime/spec/fields.h"

namespace moat::runtime::cli {

namespace {

int print_list(Cli& cli, const std::string& format, bool quiet) {
    const auto all = SentryRuntime(cli.options).list();
    if (!all.ok()) {
        return cli.fail(all.error());
    }
    Json json = Json::array();
    if (format == "table" && !quiet) {
        printf("%-28s %-10s %-10s %-40s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED");
    }
    for (const ContainerInfo& info : *all) {
        const int pid = info.state == ContainerState::kStopped ? 0 : info.sentry_pid;
        const char* status = control::container_state_name(info.state);
        if (quiet) {
            printf("%s\n", info.id.c_str());
        } else if (format == "table") {
            printf("%-28s %-10d %-10s %-40s %s\n", info.id.c_str(), pid, status,
                   info.bundle.c_str(), rfc3339(info.created_at_ns).c_str());
        } else {
            json.push_back(Json{{"ociVersion", "1.2.0"},
                                {"id", info.id},
                                {"sandbox", info.sandbox_id},
                                {"pid", pid},
                                {"status", status},
                                {"bundle", info.bundle},
                                {"created", rfc3339(info.created_at_ns)},
                                {"annotations", info.annotations}});
        }
    }
    if (format == "json" && !quiet) {
        printf("%s\n", json.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
    }
    return 0;
}

}  // namespace

void add_list(CLI::App& app, Cli& cli) {
    struct List {
        std::string format = "table";
        bool quiet = false;
    };
    auto config = std::make_shared<List>();
    CLI::App* verb = app.add_subcommand("list", "list containers and sandboxes");
    verb->add_option("-f,--format", config->format, "table or json")
        ->check(CLI::IsMember({"table", "json"}));
    verb->add_flag("-q,--quiet", config->quiet, "ids only");
    verb->final_callback([&cli, config] {
        cli.action = [&cli, config] { return print_list(cli, config->format, config->quiet); };
    });
}

}  // namespace moat::runtime::cli
