// moatd: the CRI server of a node.

#include <signal.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "cri/base/json_log.h"
#include "cri/base/settings.h"
#include "cri/images/archive.h"
#include "cri/server/node.h"
#include "cri/server/server.h"
#include "kernel/base/version.h"

namespace {

using namespace moat::cri;

void set_up_log(const Settings& settings) {
    auto logger = spdlog::stderr_color_mt("moatd");
    spdlog::set_default_logger(logger);
    spdlog::set_level(spdlog::level::from_str(settings.log_level));
    if (settings.log_json) {
        spdlog::set_formatter(make_json_formatter());
    } else {
        spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%fZ %l %v", spdlog::pattern_time_type::utc);
    }
}

int fail(const moat::cri::Error& error) {
    std::fprintf(stderr, "moatd: %s\n", error.message().c_str());
    return 1;
}

int load(const Settings& settings, const std::string& archive, const std::string& name) {
    auto access = open_images(settings);
    if (!access.ok()) {
        return fail(access.error());
    }
    const auto loaded = load_archive(*access->images, archive, name);
    if (!loaded.ok()) {
        return fail(loaded.error());
    }
    for (const LoadedImage& image : *loaded) {
        std::printf("%s", image.id.c_str());
        for (const std::string& tag : image.names) {
            std::printf(" %s", tag.c_str());
        }
        std::printf("\n");
    }
    return 0;
}

int list(const Settings& settings) {
    auto access = open_images(settings);
    if (!access.ok()) {
        return fail(access.error());
    }
    const auto images = access->images->list();
    if (!images.ok()) {
        return fail(images.error());
    }
    for (const ImageRecord& image : *images) {
        std::printf("%s %llu", image.id.c_str(), static_cast<unsigned long long>(image.size));
        for (const auto* names : {&image.tags, &image.digests}) {
            for (const std::string& name : *names) {
                std::printf(" %s", name.c_str());
            }
        }
        std::printf("\n");
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    Settings settings;
    CLI::App app{
        "moatd serves the Kubernetes Container Runtime Interface; each pod gets its own kernel"};
    app.set_version_flag("--version", moat::kVersion);
    app.add_option("--socket", settings.socket, "where to listen, unix:///path")
        ->capture_default_str();
    app.add_option("--root", settings.root, "images and persistent state")->capture_default_str();
    app.add_option("--state", settings.state, "state that ends with the machine's uptime")
        ->capture_default_str();
    app.add_option("--cni-conf-dir", settings.cni_conf_dir,
                   "CNI configurations; none: the built-in network")
        ->capture_default_str();
    app.add_option("--cni-bin-dir", settings.cni_bin_dir, "CNI plugins")->capture_default_str();
    app.add_option("--registry-mirror", settings.registry_mirrors,
                   "HOST=URL: ask URL first for images of HOST; may be repeated")
        ->allow_extra_args(false);
    app.add_option("--registry-config-dir", settings.registry_config_dir, "HOST/hosts.toml files")
        ->capture_default_str();
    app.add_option("--sentry", settings.sentry_path, "moat-sentry; default: beside moatd");
    app.add_option("--gofer", settings.gofer_path, "moat-gofer; default: beside moatd");
    app.add_option("--log-level", settings.log_level, "debug, info, warning or error")
        ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error"}))
        ->capture_default_str();
    app.add_flag("--log-json", settings.log_json, "one JSON object a line");
    app.add_flag("--strace", settings.strace, "sentries log every system call of their guests");

    std::string archive;
    std::string name;
    CLI::App* image =
        app.add_subcommand("image", "works on the images of --root, also beside a running moatd");
    image->require_subcommand(1);
    CLI::App* image_load = image->add_subcommand("load", "load an OCI layout or a docker archive");
    image_load->add_option("ARCHIVE", archive, "a tar, plain or packed with gzip or zstd")
        ->required();
    image_load->add_option("--name", name, "the image's name, instead of the archive's");
    CLI::App* image_list = image->add_subcommand("list", "id, size and names of all images");
    CLI11_PARSE(app, argc, argv);

    // A client that goes away must not end the server; gRPC and the pipes of exec report EPIPE.
    signal(SIGPIPE, SIG_IGN);
    // Files get the modes that they are opened with.
    umask(0022);
    set_up_log(settings);
    if (image_load->parsed()) {
        return load(settings, archive, name);
    }
    if (image_list->parsed()) {
        return list(settings);
    }
    // Before any thread is made, so that all inherit it and only serve() takes them.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    const auto served = serve(settings);
    return served.ok() ? 0 : fail(served.error());
}
