#include <stdio.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <memory>

#include "runtime/cli/cli.h"
#include "runtime/spec/fields.h"

namespace moat::runtime::cli {

namespace {

Result<Json> stats_event(SentryRuntime& runtime, const std::string& id) {
    const Stats s = TRY(runtime.stats(id));
    // The shape of runc's `events`, which cAdvisor and containerd's tools read.
    return Json{{"type", "stats"},
                {"id", id},
                {"data",
                 {{"cpu", {{"usage", {{"total", s.cpu_usage_ns}}}}},
                  {"memory",
                   {{"usage", {{"usage", s.memory_usage_bytes}, {"limit", s.memory_limit_bytes}}},
                    {"workingSet", s.memory_working_set_bytes},
                    {"raw",
                     {{"rss", s.memory_rss_bytes},
                      {"pgfault", s.page_faults},
                      {"pgmajfault", s.major_page_faults},
                      {"oom_kill", s.oom_kills}}}}},
                  {"pids", {{"current", s.pids}}},
                  {"writableLayer",
                   {{"bytes", s.writable_layer_bytes}, {"inodes", s.writable_layer_inodes}}}}}};
}

int run_events(Cli& cli, const std::string& id, bool once, int interval_s) {
    SentryRuntime runtime(cli.options);
    const auto print_stats = [&]() -> Status {
        printf("%s\n", TRY(stats_event(runtime, id)).dump().c_str());
        fflush(stdout);
        return {};
    };
    if (once) {
        return cli.done(print_stats());
    }
    if (interval_s > 0) {
        // A clock, not a delay: the interval holds however long the statistics take.
        const ScopedFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
        const itimerspec every{{interval_s, 0}, {0, 1}};
        ::timerfd_settime(timer.get(), 0, &every, nullptr);
        uint64_t ticks;
        while (::read(timer.get(), &ticks, sizeof ticks) == sizeof ticks) {
            if (const auto info = runtime.state(id);
                !info.ok() || info->state == ContainerState::kStopped) {
                return info.ok() ? 0 : cli.fail(info.error());
            }
            if (const auto printed = print_stats(); !printed.ok()) {
                return cli.fail(printed.error());
            }
        }
        return 0;
    }
    const auto info = runtime.state(id);
    if (!info.ok()) {
        return cli.fail(info.error());
    }
    auto events = runtime.events(info->sandbox_id);
    if (!events.ok()) {
        return cli.fail(events.error());
    }
    for (;;) {
        const auto event = (*events)->next();
        if (!event.ok()) {
            return event.error().code() == ECONNRESET ? 0 : cli.fail(event.error());
        }
        if (event->container_id != id && id != info->sandbox_id) {
            continue;
        }
        Json json = {{"type", event->kind}, {"id", event->container_id}};
        if (event->exit) {
            json["data"] = {{"exitStatus", event->exit->shell_code()},
                            {"oomKilled", event->exit->oom_killed}};
        }
        printf("%s\n", json.dump().c_str());
        fflush(stdout);
    }
}

}  // namespace

void add_events(CLI::App& app, Cli& cli) {
    struct Events {
        std::string id;
        bool stats = false;
        std::string interval;
    };
    auto config = std::make_shared<Events>();
    CLI::App* verb = app.add_subcommand("events", "print a sandbox's events, or statistics");
    verb->add_option("id", config->id, "the container's id")->required();
    verb->add_flag("--stats", config->stats, "print statistics once and end");
    verb->add_option("--interval", config->interval,
                     "print statistics every so many seconds (\"5s\")");
    verb->final_callback([&cli, config] {
        cli.action = [&cli, config] {
            const int interval = atoi(config->interval.c_str());
            if (!config->interval.empty() && interval <= 0) {
                return cli.fail(Error(EINVAL, "events: --interval: expected seconds, like 5s"));
            }
            return run_events(cli, config->id, config->stats, interval);
        };
    });
}

}  // namespace moat::runtime::cli
