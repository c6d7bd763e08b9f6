#pragma once

// A small image, and the requests for a pod that runs it: what tests and fuzzers of whole moatds
// begin with.

#include <string>

#include "api.pb.h"
#include "cri/base/sha256.h"
#include "unit/cri/tar_builder.h"

namespace moat::cri {

/// A docker archive of test/app:1: a /etc/passwd, /app as its command, run by its user app.
inline std::string app_archive() {
    const std::string layer = TarBuilder().file("etc/passwd", "app:x:9:9::/app:\n").finish();
    const std::string config =
        R"({"architecture":"amd64","os":"linux","config":{"Cmd":["/app"],"User":"app"},)"
        R"("rootfs":{"type":"layers","diff_ids":[")" +
        Sha256::of(layer) + R"("]}})";
    return TarBuilder()
        .file("manifest.json",
              R"([{"Config":"config.json","RepoTags":["test/app:1"],"Layers":["layer.tar"]}])")
        .file("config.json", config)
        .file("layer.tar", layer)
        .finish();
}

/// In the node's network, which needs no privilege.
inline ::runtime::v1::PodSandboxConfig app_pod(const std::string& log_directory) {
    ::runtime::v1::PodSandboxConfig config;
    config.mutable_metadata()->set_name("web");
    config.mutable_metadata()->set_namespace_("default");
    config.mutable_metadata()->set_uid("u1");
    config.set_log_directory(log_directory);
    config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_network(
        ::runtime::v1::NODE);
    return config;
}

inline ::runtime::v1::ContainerConfig app_container() {
    ::runtime::v1::ContainerConfig config;
    config.mutable_metadata()->set_name("main");
    config.mutable_image()->set_image("test/app:1");
    config.set_log_path("main/0.log");
    return config;
}

}  // namespace moat::cri
