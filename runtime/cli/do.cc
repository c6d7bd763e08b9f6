#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <memory>

#include "kernel/base/cleanup.h"
#include "runtime/cli/cli.h"
#include "runtime/spec/fields.h"
#include "runtime/util/files.h"

namespace moat::runtime::cli {

namespace {

struct Do {
    std::string root = "/";
    std::string network = "none";
    std::string cwd;
    std::vector<std::string> volumes;
    std::vector<std::string> command;
    bool terminal = false;
};

/// "SRC[:DST][:ro]"
Result<Json> volume(const std::string& text) {
    std::string source = text, destination;
    bool read_only = false;
    if (source.ends_with(":ro")) {
        read_only = true;
        source.resize(source.size() - 3);
    }
    if (const size_t colon = source.find(':'); colon != std::string::npos) {
        destination = source.substr(colon + 1);
        source.resize(colon);
    }
    source = TRY_STEP("--volume " + text, real_path(source));
    if (destination.empty()) {
        destination = source;
    }
    if (destination[0] != '/') {
        return Error(EINVAL, "--volume " + text + ": expected SRC[:DST][:ro], DST absolute");
    }
    Json options = {"rbind"};
    options.push_back(read_only ? "ro" : "rw");
    return Json{{"destination", destination},
                {"type", "bind"},
                {"source", source},
                {"options", std::move(options)}};
}

/// The caller's command over the host's own files: reads go through, writes stay in the sandbox.
Result<Json> config_for(const Do& config) {
    const std::string root = TRY_STEP("--root", real_path(config.root));
    std::string cwd = config.cwd;
    if (cwd.empty()) {
        cwd = "/";
        if (root == "/") {
            cwd = TRY_STEP("working directory", real_path("."));
        }
    }
    Json env = Json::array();
    for (char** variable = environ; *variable != nullptr; variable++) {
        env.push_back(*variable);
    }
    Json namespaces =
        Json::array({{{"type", "pid"}}, {{"type", "ipc"}}, {{"type", "uts"}}, {{"type", "mount"}}});
    if (config.network == "none") {
        namespaces.push_back({{"type", "network"}});
    }
    Json mounts =
        Json::array({{{"destination", "/proc"}, {"type", "proc"}, {"source", "proc"}},
                     {{"destination", "/dev"}, {"type", "tmpfs"}, {"source", "tmpfs"}},
                     {{"destination", "/dev/pts"}, {"type", "devpts"}, {"source", "devpts"}},
                     {{"destination", "/dev/shm"}, {"type", "tmpfs"}, {"source", "shm"}},
                     {{"destination", "/dev/mqueue"}, {"type", "mqueue"}, {"source", "mqueue"}},
                     {{"destination", "/sys"},
                      {"type", "sysfs"},
                      {"source", "sysfs"},
                      {"options", {"ro", "nosuid"}}}});
    for (const std::string& text : config.volumes) {
        mounts.push_back(TRY(volume(text)));
    }
    const Json capabilities = {
        "CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FOWNER",  "CAP_FSETID",           "CAP_KILL",
        "CAP_SETGID", "CAP_SETUID",       "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
        "CAP_MKNOD",  "CAP_AUDIT_WRITE",  "CAP_SETFCAP"};
    return Json{{"ociVersion", "1.2.0"},
                {"process",
                 {{"terminal", config.terminal},
                  {"user", {{"uid", getuid()}, {"gid", getgid()}}},
                  {"args", config.command},
                  {"env", std::move(env)},
                  {"cwd", cwd},
                  {"capabilities",
                   {{"bounding", capabilities},
                    {"effective", capabilities},
                    {"permitted", capabilities}}}}},
                {"root", {{"path", root}, {"readonly", false}}},
                {"hostname", "moat"},
                {"mounts", std::move(mounts)},
                {"linux", {{"namespaces", std::move(namespaces)}}}};
}

int run_do(Cli& cli, const Do& config) {
    if (config.command.empty()) {
        return cli.fail(Error(EINVAL, "do: no program is named"));
    }
    const auto json = config_for(config);
    if (!json.ok()) {
        return cli.fail(json.error().within("do"));
    }
    char bundle[] = "/tmp/moat-do-XXXXXX";
    if (::mkdtemp(bundle) == nullptr) {
        return cli.fail(Error::from_errno(errno, "do: make a bundle"));
    }
    Cleanup remove_bundle([&] { (void)remove_tree(bundle); });
    const ScopedFd directory(::open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (const auto written = replace_file(
            directory.get(), "config.json",
            json->dump(-1, ' ', false, Json::error_handler_t::replace), Durability::kProcess);
        !written.ok()) {
        return cli.fail(written.error().within("do"));
    }
    RunConfig run;
    run.create.id = std::string("do-") + (bundle + sizeof "/tmp/moat-do-" - 1);
    run.create.bundle = bundle;
    run.terminal = config.terminal;
    run.scratch = bundle;
    return run_container(cli, run);
}

}  // namespace

void add_do(CLI::App& app, Cli& cli) {
    auto config = std::make_shared<Do>();
    CLI::App* verb =
        app.add_subcommand("do", "run a command in a sandbox over this machine's files");
    verb->add_option("--root", config->root, "directory that it sees as its root");
    verb->add_option("--network", config->network, "none or host")
        ->check(CLI::IsMember({"none", "host"}));
    verb->add_option("--cwd", config->cwd, "working directory inside");
    verb->add_option("-v,--volume", config->volumes, "SRC[:DST][:ro]: writes there reach the host")
        ->allow_extra_args(false);
    verb->add_flag("-t,--tty", config->terminal, "give it a terminal");
    verb->add_option("command", config->command, "the program and its arguments");
    verb->final_callback(
        [&cli, config] { cli.action = [&cli, config] { return run_do(cli, *config); }; });
}

}  // namespace moat::runtime::cli
