#pragma once

#include <string>
#include <vector>

#include "cri/base/error.h"
#include "cri/containers/user.h"
#include "cri/handlers/handlers.h"
#include "cri/images/image_config.h"

namespace runtime::v1 {
class ContainerConfig;
class LinuxContainerResources;
class Mount;
class PodSandboxConfig;
}  // namespace runtime::v1

namespace moat::runtime {
struct Resources;
}

namespace moat::cri {

namespace api = ::runtime::v1;

/// All that goes into a container's config.json.
struct SpecInput {
    const api::ContainerConfig& config;
    const api::PodSandboxConfig& pod;
    const ImageConfig& image;
    ResolvedUser user;
    std::string rootfs;  ///< the image's root, shared and read-only
    std::string container_id;
    std::string pod_id;
    std::string hostname;
    std::string network_namespace;  ///< empty: none
    std::string pod_directory;      ///< holds hosts, hostname, resolv.conf and shm of the pod
    int sandbox_pid = 0;            ///< sentry or pause; names the pod's pid namespace
    Kernel kernel = Kernel::kSandbox;
    std::vector<std::string> cdi_directories;  ///< where CDI specifications are
    std::string pid_target;  ///< the container whose pid namespace is joined (TARGET)
};

/// The user that the request and the image ask for, before names are looked up.
UserRequest user_request(const api::ContainerConfig& config, const ImageConfig& image);

/// config.json, OCI runtime-spec 1.0. Sources of bind mounts that are missing are made as
/// directories (what kubelet expects for hostPath volumes of no type); links in them are resolved.
Result<std::string> build_spec(const SpecInput& input);

/// The stop signal of the request, else of the image, else SIGTERM.
Result<int> stop_signal(const api::ContainerConfig& config, const ImageConfig& image);

/// For update() and for the pod's own cgroup. Zero in CRI means "not said".
runtime::Resources to_resources(const api::LinuxContainerResources& resources);

}  // namespace moat::cri
