#include "cri/containers/config_check.h"

#include <algorithm>

#include "api.pb.h"
#include "cgroups/cgroup.h"
#include "cri/base/texts.h"
#include "cri/containers/devices.h"
#include "cri/containers/image_volumes.h"
#include "cri/containers/resources.h"
#include "cri/containers/seccomp.h"
#include "cri/containers/user_namespace.h"

namespace moat::cri {

namespace {

/// Kubernetes' own limit for the annotations of an object (TotalAnnotationSizeLimitB). Every list
/// of pods carries all of them, and clients take 16 MiB.
constexpr size_t kAnnotationBytes = 256 << 10;

/// As runc: over these files of /proc a volume may lie (lxcfs, for one), over nothing else there.
const char* const kMountableInProc[] = {"/proc/cpuinfo",
                                        "/proc/diskstats",
                                        "/proc/meminfo",
                                        "/proc/stat",
                                        "/proc/swaps",
                                        "/proc/uptime",
                                        "/proc/loadavg",
                                        "/proc/slabinfo",
                                        "/proc/net/dev",
                                        "/proc/sys/kernel/ns_last_pid",
                                        "/proc/sys/crypto/fips_enabled"};

Status check_namespaces(const api::NamespaceOption& options, const std::string& where,
                        Kernel kernel) {
    for (const auto& [name, mode] :
         {std::pair("network", options.network()), std::pair("pid", options.pid()),
          std::pair("ipc", options.ipc())}) {
        const bool whole_pod = std::string_view(name) != "pid";
        if (whole_pod && mode != api::POD && mode != api::NODE) {
            return invalid_argument(where + "." + name + ": " + api::NamespaceMode_Name(mode) +
                                    ": only POD and NODE");
        }
    }
    if (options.pid() == api::NODE && kernel == Kernel::kSandbox) {
        return not_supported(where +
                             ".pid: NODE: a sandboxed pod does not see the node's processes");
    }
    if (options.pid() == api::TARGET && kernel != Kernel::kSandbox) {
        return not_supported(where + ".pid: TARGET: not built for the handler native");
    }
    if (options.pid() == api::TARGET && options.target_id().empty()) {
        return invalid_argument(where + ".target_id: missing with pid TARGET");
    }
    if (options.ipc() == api::NODE && kernel == Kernel::kSandbox) {
        return not_supported(where +
                             ".ipc: NODE: a sandboxed pod does not see the node's IPC objects");
    }
    TRY(check_user_namespace(options, where + ".userns_options"));
    if (options.userns_options().mode() == api::POD && options.has_userns_options() &&
        options.network() == api::NODE && kernel == Kernel::kNode) {
        return not_supported(where +
                             ".userns_options: POD with network NODE: what is root in the pod is "
                             "nobody in the node's network namespace");
    }
    return {};
}

/// Labels or annotations.
template <typename Map>
Status check_map(const Map& map, const std::string& field) {
    size_t bytes = 0;
    for (const auto& [key, value] : map) {
        bytes += key.size() + value.size();
    }
    if (bytes > kAnnotationBytes) {
        return invalid_argument(field + ": " + std::to_string(bytes) + " bytes in all, more than " +
                                std::to_string(kAnnotationBytes));
    }
    return {};
}

/// `.`, `//` and a slash at the end mean nothing in a path; ".." has been refused.
std::string plain_path(const std::string& path) {
    std::string plain;
    for (size_t at = 0; at < path.size();) {
        const size_t end = std::min(path.find('/', at), path.size());
        const std::string part = path.substr(at, end - at);
        if (!part.empty() && part != ".") {
            plain += "/" + part;
        }
        at = end + 1;
    }
    return plain.empty() ? "/" : plain;
}

Status check_container_path(const std::string& path, const std::string& where, Kernel kernel) {
    TRY(check_absolute_path(path, where + ": container_path"));
    const std::string plain = plain_path(path);
    if (plain == "/") {
        return invalid_argument(where + ": container_path: nothing can be mounted over the root");
    }
    // runc takes a procfs for /proc itself, and looks.
    const bool in_proc =
        (plain == "/proc" && kernel == Kernel::kSandbox) || plain.rfind("/proc/", 0) == 0;
    if (in_proc && std::none_of(std::begin(kMountableInProc), std::end(kMountableInProc),
                                [&](const char* known) { return plain == known; })) {
        return invalid_argument(where + ": container_path: inside of /proc");
    }
    return {};
}

Status check_mount(const api::Mount& mount, const api::PodSandboxConfig& pod, Kernel kernel) {
    const std::string where = "config.mounts: " + in_quotes(mount.container_path());
    TRY(check_container_path(mount.container_path(), where, kernel));
    if (mount.has_image() && !mount.image().image().empty()) {
        return check_image_mount(mount);
    }
    TRY(check_absolute_path(mount.host_path(), where + ": host_path"));
    if (mount.propagation() == api::PROPAGATION_BIDIRECTIONAL && kernel == Kernel::kSandbox) {
        return not_supported(where +
                             ": propagation PROPAGATION_BIDIRECTIONAL: what a sandboxed pod mounts "
                             "stays in its own kernel; a pod that mounts for the node needs the "
                             "runtime handler \"native\"");
    }
    if (mount.recursive_read_only()) {
        // The rules of KEP-3857.
        if (!mount.readonly()) {
            return invalid_argument(where + ": recursive_read_only needs readonly");
        }
        if (mount.propagation() != api::PROPAGATION_PRIVATE) {
            return invalid_argument(where + ": recursive_read_only needs propagation " +
                                    "PROPAGATION_PRIVATE, not " +
                                    api::MountPropagation_Name(mount.propagation()));
        }
    }
    TRY(check_mount_mappings(mount, pod, where));
    for (const std::string& option : mount.mount_options()) {
        if (option != "noexec" && option != "nosuid" && option != "nodev") {
            return invalid_argument(where + ": mount_options: " + in_quotes(option) +
                                    ": only noexec, nosuid and nodev");
        }
    }
    return {};
}

/// The kernel of a sandboxed pod has no huge pages. Kubelet sends a limit of 0 for every size that
/// the node has, which is what such a pod gets.
Status check_huge_pages(const api::LinuxContainerResources& resources, const std::string& field,
                        Kernel kernel) {
    for (const auto& limit : resources.hugepage_limits()) {
        if (limit.limit() != 0 && kernel == Kernel::kSandbox) {
            return not_supported(field + ".hugepage_limits: " + in_quotes(limit.page_size()) +
                                 ": " + std::to_string(limit.limit()) +
                                 ": a sandboxed pod has no huge pages; one that needs them runs " +
                                 "by the runtime handler \"native\"");
        }
    }
    return {};
}

Status check_resources_of(const api::LinuxContainerResources& resources, const std::string& field,
                          Kernel kernel) {
    TRY_STEP(field, check_resources(resources));
    return check_huge_pages(resources, field, kernel);
}

/// "" and "/" mean our own default.
Status check_cgroup_parent(const std::string& path, const std::string& field) {
    if (path.empty() || path == "/") {
        return {};
    }
    TRY(check_absolute_path("/" + path, field));
    const auto parent = cgroups::normalize_path(path);
    return parent.ok() ? Status() : invalid_argument(field + ": " + parent.error().message());
}

/// A path of the container, without which the runtime would not know what is meant.
template <typename Paths>
Status check_guest_paths(const Paths& paths, const std::string& field) {
    for (const std::string& path : paths) {
        TRY(check_absolute_path(path, field));
    }
    return {};
}

}  // namespace

Status check_pod_config(const api::PodSandboxConfig& pod, Kernel kernel) {
    TRY(check_name(pod.metadata().name(), "config.metadata.name"));
    TRY(check_name(pod.metadata().uid(), "config.metadata.uid"));
    if (!pod.metadata().namespace_().empty()) {
        TRY(check_name(pod.metadata().namespace_(), "config.metadata.namespace"));
    }
    TRY(check_hostname(pod.hostname(), "config.hostname"));
    if (!pod.log_directory().empty()) {
        TRY(check_absolute_path(pod.log_directory(), "config.log_directory"));
    }
    TRY(check_map(pod.labels(), "config.labels"));
    TRY(check_map(pod.annotations(), "config.annotations"));
    const auto& guest = pod.linux();
    TRY(check_cgroup_parent(guest.cgroup_parent(), "config.linux.cgroup_parent"));
    TRY(check_resources_of(guest.resources(), "config.linux.resources", kernel));
    TRY(check_resources_of(guest.overhead(), "config.linux.overhead", kernel));
    const auto& security = guest.security_context();
    TRY(check_namespaces(security.namespace_options(),
                         "config.linux.security_context.namespace_options", kernel));
    // No process of a sandboxed pod's own runs: its profile only has to be one.
    if (kernel == Kernel::kSandbox && !security.privileged()) {
        TRY(seccomp_profile(seccomp_request(security), {}));
    }
    return check_apparmor(security.has_apparmor() ? &security.apparmor() : nullptr, "",
                          "linux.security_context.apparmor");
}

Status check_container_config(const api::ContainerConfig& config, const api::PodSandboxConfig& pod,
                              Kernel kernel) {
    TRY(check_name(config.metadata().name(), "config.metadata.name"));
    if (config.image().image().empty()) {
        return invalid_argument("config.image.image: missing");
    }
    TRY(check_map(config.labels(), "config.labels"));
    TRY(check_map(config.annotations(), "config.annotations"));
    for (const auto& device : config.devices()) {
        const std::string field = "config.devices: " + in_quotes(device.host_path());
        TRY(check_absolute_path(device.host_path(), field + ": host_path"));
        TRY(check_absolute_path(device.container_path(), field + ": container_path"));
        if (device.permissions().find_first_not_of("rwm") != std::string::npos) {
            return invalid_argument(field + ": permissions: " + in_quotes(device.permissions()) +
                                    ": not of r, w and m");
        }
        if (kernel == Kernel::kSandbox) {
            TRY(check_sandbox_device(device.host_path(), device.container_path(), field));
        }
    }
    for (const auto& mount : config.mounts()) {
        TRY(check_mount(mount, pod, kernel));
    }
    if (!config.log_path().empty()) {
        // The kubelet sends a path that it chose; another client's must not lead out of the pod's
        // log directory, as the file is opened by root.
        TRY(check_relative_path(config.log_path(), "config.log_path"));
    }
    TRY(check_resources_of(config.linux().resources(), "config.linux.resources", kernel));
    const auto& security = config.linux().security_context();
    const std::string of_security = "config.linux.security_context.";
    TRY(check_namespaces(security.namespace_options(), of_security + "namespace_options", kernel));
    if (security.namespace_options().userns_options().mode() == api::POD &&
        security.namespace_options().has_userns_options() && !has_user_namespace(pod)) {
        return invalid_argument(of_security + "namespace_options.userns_options: the pod has none");
    }
    TRY(check_guest_paths(security.masked_paths(), of_security + "masked_paths"));
    TRY(check_guest_paths(security.readonly_paths(), of_security + "readonly_paths"));
    if (kernel == Kernel::kSandbox && !security.privileged()) {
        TRY(seccomp_profile(seccomp_request(security), {}));
    }
    return check_apparmor(security.has_apparmor() ? &security.apparmor() : nullptr,
                          security.apparmor_profile(), "linux.security_context.apparmor");
}

}  // namespace moat::cri
