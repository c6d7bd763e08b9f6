#include <memory>

#include "runtime/cli/cli.h"
#include "runtime/spec/spec.h"
#include "runtime/util/files.h"

namespace moat::runtime::cli {

namespace {

struct Update {
    std::string id, file;
    Resources resources;
};

Resources resources_of(const cgroups::Limits& limits) {
    Resources r;
    r.memory_limit_bytes = limits.memory_bytes;
    r.memory_swap_bytes = limits.memory_swap_bytes;
    r.cpu_quota_us = limits.cpu_quota_us;
    r.cpu_period_us = limits.cpu_period_us;
    r.cpu_shares = limits.cpu_shares;
    r.cpuset_cpus = limits.cpuset_cpus;
    r.cpuset_mems = limits.cpuset_mems;
    r.pids_limit = limits.pids;
    r.unified = limits.unified;
    return r;
}

}  // namespace

void add_update(CLI::App& app, Cli& cli) {
    auto update = std::make_shared<Update>();
    Resources& r = update->resources;
    CLI::App* verb = app.add_subcommand("update", "change a container's limits");
    verb->add_option("id", update->id, "the container's id")->required();
    verb->add_option("-r,--resources", update->file, "file with OCI resources; - for stdin");
    verb->add_option("--memory", r.memory_limit_bytes, "bytes; -1: none");
    verb->add_option("--memory-swap", r.memory_swap_bytes, "memory and swap together; -1: none");
    verb->add_option("--cpu-quota", r.cpu_quota_us, "microseconds per period; -1: none");
    verb->add_option("--cpu-period", r.cpu_period_us, "microseconds");
    verb->add_option("--cpu-share", r.cpu_shares, "relative weight, 2 to 262144");
    verb->add_option("--cpuset-cpus", r.cpuset_cpus, "CPUs, like 0-1");
    verb->add_option("--cpuset-mems", r.cpuset_mems, "memory nodes");
    verb->add_option("--pids-limit", r.pids_limit, "most guest tasks at once; -1: none");
    verb->final_callback([&cli, update] {
        cli.action = [&cli, update] {
            if (!update->file.empty()) {
                const std::string path = update->file == "-" ? "/dev/stdin" : update->file;
                const auto text = read_whole_file(path);
                if (!text.ok()) {
                    return cli.fail(text.error());
                }
                const auto limits = parse_resources(*text, path);
                if (!limits.ok()) {
                    return cli.fail(limits.error());
                }
                update->resources = resources_of(*limits);
            }
            return cli.done(SentryRuntime(cli.options).update(update->id, update->resources));
        };
    });
}

}  // namespace moat::runtime::cli
