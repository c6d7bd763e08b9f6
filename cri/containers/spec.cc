#include "cri/containers/spec.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "api.pb.h"
#include "cri/base/files.h"
#include "cri/cdi/edits.h"
#include "cri/containers/capabilities.h"
#include "cri/containers/image_volumes.h"
#include "cri/containers/native_spec.h"
#include "cri/containers/seccomp.h"
#include "cri/containers/user_namespace.h"
#include "runtime/runtime.h"
#include "runtime/spec/spec.h"

namespace moat::cri {

using nlohmann::json;

namespace {

const std::vector<std::string> kDefaultMasked = {
    "/proc/acpi",          "/proc/asound", "/proc/kcore",      "/proc/keys",
    "/proc/latency_stats", "/proc/scsi",   "/proc/timer_list", "/proc/timer_stats",
    "/proc/sched_debug",   "/sys/firmware"};
const std::vector<std::string> kDefaultReadonly = {"/proc/bus", "/proc/fs", "/proc/irq",
                                                   "/proc/sys", "/proc/sysrq-trigger"};
/// Name of the volume hint of /dev/shm; a pod's author cannot give another of this name.
constexpr char kShmHint[] = "shm";
constexpr char kDefaultPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

template <typename Strings>
std::vector<std::string> to_vector(const Strings& strings) {
    return {strings.begin(), strings.end()};
}

}  // namespace

UserRequest user_request(const api::ContainerConfig& config, const ImageConfig& image) {
    const auto& security = config.linux().security_context();
    UserRequest request;
    if (security.has_run_as_user()) {
        request.uid = security.run_as_user().value();
    }
    if (security.has_run_as_group()) {
        request.gid = security.run_as_group().value();
    }
    request.username = security.run_as_username();
    request.image_user = image.user;
    request.supplemental_groups = {security.supplemental_groups().begin(),
                                   security.supplemental_groups().end()};
    request.merge_image_groups = security.supplemental_groups_policy() == api::Merge;
    return request;
}

Result<int> stop_signal(const api::ContainerConfig& config, const ImageConfig& image) {
    if (config.stop_signal() != api::SIGNAL_RUNTIME_DEFAULT) {
        // SIGNAL_SIGRTMINPLUS3 -> SIGRTMIN+3, as STOPSIGNAL writes it.
        std::string name = api::Signal_Name(config.stop_signal()).substr(sizeof("SIGNAL_") - 1);
        for (const auto& [from, to] : {std::pair{"PLUS", "+"}, std::pair{"MINUS", "-"}}) {
            if (const size_t at = name.find(from); at != std::string::npos) {
                name.replace(at, strlen(from), to);
            }
        }
        if (const int number = signal_number(name); number != 0) {
            return number;
        }
        return invalid_argument("config.stop_signal: " + name + ": unknown");
    }
    if (!image.stop_signal.empty()) {
        if (const int number = signal_number(image.stop_signal); number != 0) {
            return number;
        }
        return invalid_argument("the image's StopSignal: \"" + image.stop_signal + "\": unknown");
    }
    return 15;
}

runtime::Resources to_resources(const api::LinuxContainerResources& r) {
    runtime::Resources out;
    const auto set = [](auto& field, auto value) {
        if (value != 0) {
            field = static_cast<std::decay_t<decltype(*field)>>(value);
        }
    };
    set(out.memory_limit_bytes, r.memory_limit_in_bytes());
    set(out.memory_swap_bytes, r.memory_swap_limit_in_bytes());
    set(out.cpu_quota_us, r.cpu_quota());
    set(out.cpu_period_us, r.cpu_period());
    set(out.cpu_shares, r.cpu_shares());
    if (!r.cpuset_cpus().empty()) {
        out.cpuset_cpus = r.cpuset_cpus();
    }
    if (!r.cpuset_mems().empty()) {
        out.cpuset_mems = r.cpuset_mems();
    }
    for (const auto& limit : r.hugepage_limits()) {
        out.huge_pages[limit.page_size()] = limit.limit();
    }
    out.unified = {r.unified().begin(), r.unified().end()};
    set(out.oom_score_adj, r.oom_score_adj());
    return out;
}

namespace {

/// Command and arguments: Kubernetes' rule, where a command of the pod hides the image's CMD as
/// well.
Result<std::vector<std::string>> arguments(const api::ContainerConfig& config,
                                           const ImageConfig& image) {
    std::vector<std::string> args = to_vector(config.command());
    std::vector<std::string> rest = to_vector(config.args());
    if (args.empty()) {
        args = image.entrypoint;
        if (rest.empty()) {
            rest = image.cmd;
        }
    }
    args.insert(args.end(), rest.begin(), rest.end());
    if (args.empty()) {
        return invalid_argument(
            "config.command: neither the request nor the image says what to run");
    }
    return args;
}

/// Of the image, then the request's; what people expect of every container is added when missing.
Result<std::vector<std::string>> environment(const SpecInput& input) {
    std::vector<std::string> order;
    std::map<std::string, std::string> values;
    const auto set = [&](const std::string& key, const std::string& value) {
        if (!values.contains(key)) {
            order.push_back(key);
        }
        values[key] = value;
    };
    set("PATH", kDefaultPath);
    set("HOSTNAME", input.hostname);
    for (const std::string& entry : input.image.env) {
        const size_t equals = entry.find('=');
        set(entry.substr(0, equals), equals == std::string::npos ? "" : entry.substr(equals + 1));
    }
    for (const auto& entry : input.config.envs()) {
        if (entry.key().empty() || entry.key().find('=') != std::string::npos ||
            entry.key().find('\0') != std::string::npos ||
            entry.value().find('\0') != std::string::npos) {
            return invalid_argument("config.envs: \"" + entry.key() +
                                    "\": not a possible variable");
        }
        set(entry.key(), entry.value());
    }
    if (input.config.tty() && !values.contains("TERM")) {
        set("TERM", "xterm");
    }
    if (!values.contains("HOME")) {
        set("HOME", input.user.home);
    }
    std::vector<std::string> result;
    for (const std::string& key : order) {
        result.push_back(key + "=" + values[key]);
    }
    return result;
}

json mount_entry(const std::string& destination, const std::string& type, const std::string& source,
                 std::vector<std::string> options) {
    return {{"destination", destination},
            {"type", type},
            {"source", source},
            {"options", std::move(options)}};
}

/// Lexically, as the mount is only looked up inside the container later.
std::string clean_path(const std::string& path) {
    std::vector<std::string> parts;
    size_t at = 0;
    while (at <= path.size()) {
        const size_t end = std::min(path.find('/', at), path.size());
        const std::string part = path.substr(at, end - at);
        if (part == "..") {
            if (!parts.empty()) {
                parts.pop_back();
            }
        } else if (!part.empty() && part != ".") {
            parts.push_back(part);
        }
        at = end + 1;
    }
    std::string result;
    for (const std::string& part : parts) {
        result += "/" + part;
    }
    return result.empty() ? "/" : result;
}

/// The host's path without links, made as a directory if nothing is there.
Result<std::string> mount_source(const std::string& host_path) {
    const auto failed = [](const Error& error) {
        switch (error.code()) {
            case ENOTDIR:
            case ENAMETOOLONG:
            case ELOOP:
                return invalid_argument("host_path: " + error.message());
            default:
                return host_error(error, "host_path");
        }
    };
    struct stat st {};
    if (stat(host_path.c_str(), &st) != 0) {
        if (errno != ENOENT) {
            return failed(Error::from_errno(errno, "stat " + host_path));
        }
        if (const Status made = make_directories(host_path); !made.ok()) {
            return failed(made.error());
        }
    }
    char resolved[PATH_MAX];
    if (realpath(host_path.c_str(), resolved) == nullptr) {
        return failed(Error::from_errno(errno, "resolve " + host_path));
    }
    return std::string(resolved);
}

const char* propagation_option(api::MountPropagation propagation) {
    switch (propagation) {
        case api::PROPAGATION_BIDIRECTIONAL:
            return "rshared";
        case api::PROPAGATION_HOST_TO_CONTAINER:
            return "rslave";
        default:
            return "rprivate";
    }
}

/// System mounts first; then files of the pod and the request's mounts, parents before children.
Result<json> mounts(const SpecInput& input) {
    const auto& security = input.config.linux().security_context();
    const std::string sys_access = security.privileged() ? "rw" : "ro";
    std::vector<json> system = {
        mount_entry("/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}),
        mount_entry("/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}),
        mount_entry("/dev/pts", "devpts", "devpts",
                    {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}),
        mount_entry("/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}),
        mount_entry("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", sys_access}),
        mount_entry("/sys/fs/cgroup", "cgroup", "cgroup",
                    {"nosuid", "noexec", "nodev", "relatime", sys_access}),
        // One tmpfs for all containers of the pod: see the mount hints in annotations().
        mount_entry("/dev/shm", "bind",
                    security.namespace_options().ipc() == api::NODE ? "/dev/shm"
                                                                    : input.pod_directory + "/shm",
                    {"rbind", "rw", "nosuid", "noexec", "nodev"}),
    };
    if (input.kernel == Kernel::kSandbox) {
        system.back()["options"].push_back("size=65536k");  // containerd's, and docker's
    }
    std::vector<json> own;
    const std::string file_access = security.readonly_rootfs() ? "ro" : "rw";
    for (const char* name : {"hosts", "hostname", "resolv.conf"}) {
        own.push_back(mount_entry(std::string("/etc/") + name, "bind",
                                  input.pod_directory + "/" + name,
                                  {"rbind", "rprivate", file_access}));
    }
    std::vector<json> requested;
    for (const auto& mount : input.config.mounts()) {
        const std::string destination = clean_path(mount.container_path());
        const std::string source =
            TRY_STEP("config.mounts: \"" + destination + "\"", mount_source(mount.host_path()));
        std::vector<std::string> options = {"rbind"};
        options.push_back(propagation_option(mount.propagation()));
        options.push_back(mount.recursive_read_only() ? "rro" : mount.readonly() ? "ro" : "rw");
        for (const std::string& option : mount.mount_options()) {
            options.push_back(option);
        }
        requested.push_back(mount_entry(destination, "bind", source, std::move(options)));
        if (input.kernel == Kernel::kNode && !mount.uidmappings().empty()) {
            add_id_mappings(input.pod, requested.back());
        }
    }
    // A request for one of our own places replaces ours, as kubelet does with /etc/hosts.
    const auto is_requested = [&](const json& ours) {
        return std::any_of(requested.begin(), requested.end(), [&](const json& theirs) {
            return theirs["destination"] == ours["destination"];
        });
    };
    std::erase_if(system, is_requested);
    std::erase_if(own, is_requested);
    own.insert(own.end(), requested.begin(), requested.end());
    std::stable_sort(own.begin(), own.end(), [](const json& a, const json& b) {
        const auto depth = [](const json& m) {
            const auto& path = m["destination"].get_ref<const std::string&>();
            return path == "/" ? 0 : std::count(path.begin(), path.end(), '/');
        };
        return depth(a) < depth(b);
    });
    json all = json::array();
    for (auto* list : {&system, &own}) {
        for (json& entry : *list) {
            all.push_back(std::move(entry));
        }
    }
    return all;
}

Result<json> capabilities(const api::LinuxContainerSecurityContext& security) {
    const auto& request = security.capabilities();
    auto set =
        security.privileged()
            ? runtime::capability_names()
            : TRY(adjust_capabilities(default_capabilities(), to_vector(request.add_capabilities()),
                                      to_vector(request.drop_capabilities())));
    json ambient = json::array();
    for (const std::string& name : request.add_ambient_capabilities()) {
        const std::string capability = TRY(capability_name(name));
        if (std::find(set.begin(), set.end(), capability) == set.end()) {
            set.push_back(capability);
        }
        ambient.push_back(capability);
    }
    // capabilities(7): only what is inheritable too can be ambient.
    return json{{"bounding", set},
                {"effective", set},
                {"permitted", set},
                {"inheritable", ambient},
                {"ambient", ambient}};
}

json resources(const api::LinuxContainerResources& r) {
    json memory = json::object();
    json cpu = json::object();
    const auto set = [](json& into, const char* key, int64_t value) {
        if (value != 0) {
            into[key] = value;
        }
    };
    set(memory, "limit", r.memory_limit_in_bytes());
    set(memory, "swap", r.memory_swap_limit_in_bytes());
    set(cpu, "shares", r.cpu_shares());
    set(cpu, "quota", r.cpu_quota());
    set(cpu, "period", r.cpu_period());
    if (!r.cpuset_cpus().empty()) {
        cpu["cpus"] = r.cpuset_cpus();
    }
    if (!r.cpuset_mems().empty()) {
        cpu["mems"] = r.cpuset_mems();
    }
    json out = {{"memory", memory}, {"cpu", cpu}};
    for (const auto& limit : r.hugepage_limits()) {
        out["hugepageLimits"].push_back(
            {{"pageSize", limit.page_size()}, {"limit", limit.limit()}});
    }
    if (!r.unified().empty()) {
        out["unified"] = std::map<std::string, std::string>(r.unified().begin(), r.unified().end());
    }
    return out;
}

json namespaces(const SpecInput& input) {
    const auto& options = input.config.linux().security_context().namespace_options();
    json list = json::array();
    for (const char* type : {"uts", "mount"}) {
        list.push_back({{"type", type}});
    }
    json ipc = {{"type", "ipc"}};
    if (options.ipc() == api::POD) {
        ipc["path"] = "/proc/" + std::to_string(input.sandbox_pid) + "/ns/ipc";
    }
    list.push_back(std::move(ipc));
    json pid = {{"type", "pid"}};
    if (options.pid() == api::POD) {
        // A path says "shared by the pod": the sandbox has one pid namespace for that.
        pid["path"] = "/proc/" + std::to_string(input.sandbox_pid) + "/ns/pid";
    }
    if (options.pid() != api::NODE) {
        list.push_back(std::move(pid));
    }
    if (has_user_namespace(input.pod)) {
        list.push_back({{"type", "user"}});
    }
    json network = {{"type", "network"}};
    if (!input.network_namespace.empty()) {
        network["path"] = input.network_namespace;
    }
    list.push_back(std::move(network));
    return list;
}

/// The CRI keys by which the runtime knows a container from a sandbox, the hint that makes /dev/shm
/// one tmpfs per pod, and of the authors' annotations the hints for volumes of their own. Nothing
/// else of theirs: some of the runtime's annotations loosen the sandbox, and that is for the node's
/// owner.
json annotations(const SpecInput& input) {
    json all = json::object();
    for (const auto* theirs : {&input.pod.annotations(), &input.config.annotations()}) {
        for (const auto& [key, value] : *theirs) {
            for (const std::string prefix : {"dev.moat.spec.mount.", "dev.gvisor.spec.mount."}) {
                if (key.rfind(prefix, 0) == 0 && key.rfind(prefix + kShmHint + ".", 0) != 0) {
                    all[key] = value;
                }
            }
        }
    }
    if (!input.pid_target.empty()) {
        all["dev.moat.pid-namespace"] = "container:" + input.pid_target;
    }
    if (has_user_namespace(input.pod)) {
        all["dev.moat.idmapped-root"] = "true";
    }
    all["io.kubernetes.cri.container-type"] = "container";
    all["io.kubernetes.cri.sandbox-id"] = input.pod_id;
    all["io.kubernetes.cri.sandbox-name"] = input.pod.metadata().name();
    all["io.kubernetes.cri.sandbox-namespace"] = input.pod.metadata().namespace_();
    all["io.kubernetes.cri.sandbox-uid"] = input.pod.metadata().uid();
    all["io.kubernetes.cri.container-name"] = input.config.metadata().name();
    all["io.kubernetes.cri.image-name"] = input.config.image().image();
    const std::string hint = std::string("dev.moat.spec.mount.") + kShmHint;
    all[hint + ".source"] = input.pod_directory + "/shm";
    all[hint + ".type"] = "tmpfs";
    all[hint + ".share"] = "pod";
    return all;
}

/// Those of the field and, as containerd has it, those of the container's annotations.
Status add_cdi_devices(json& spec, const SpecInput& input) {
    std::vector<std::string> names;
    for (const auto& device : input.config.cdi_devices()) {
        names.push_back(device.name());
    }
    std::string field = "config.CDI_devices";
    for (const auto& [key, value] : input.config.annotations()) {
        if (key.rfind("cdi.k8s.io/", 0) == 0) {
            field = "config.CDI_devices and annotations cdi.k8s.io/...";
            for (std::string& name : split_cdi_names(value)) {
                names.push_back(std::move(name));
            }
        }
    }
    if (names.empty()) {
        return {};
    }
    return apply_cdi(spec, TRY(find_cdi_devices(input.cdi_directories, names, field)),
                     input.kernel);
}

}  // namespace

Result<std::string> build_spec(const SpecInput& input) {
    const auto& config = input.config;
    const UserIds& ids = input.user.ids;
    TRY(check_mapped_ids(input.pod, ids.uid, ids.gid, ids.groups));
    const auto& security = config.linux().security_context();
    // Not inside the list below: an error there would leave its elements behind for ever.
    const std::vector<std::string> args = TRY(arguments(config, input.image));
    const std::vector<std::string> env = TRY(environment(input));
    const json capability_sets = TRY(capabilities(security));
    json process = {
        {"terminal", config.tty()},
        {"user",
         {{"uid", input.user.ids.uid},
          {"gid", input.user.ids.gid},
          {"additionalGids", input.user.ids.groups}}},
        {"args", args},
        {"env", env},
        {"cwd",
         clean_path(config.working_dir().empty() ? input.image.working_dir : config.working_dir())},
        {"capabilities", capability_sets},
        {"rlimits", {{{"type", "RLIMIT_NOFILE"}, {"soft", 1024}, {"hard", 524288}}}},
        {"noNewPrivileges", security.no_new_privs()},
    };
    if (config.linux().resources().oom_score_adj() != 0) {
        process["oomScoreAdj"] = config.linux().resources().oom_score_adj();
    }
    json guest = {
        {"namespaces", namespaces(input)},
        {"resources", resources(config.linux().resources())},
    };
    add_id_mappings(input.pod, guest);
    if (!security.privileged()) {
        if (input.kernel == Kernel::kSandbox) {  // of the native handler: native_spec.cc
            const json& capability_sets = process["capabilities"];
            if (auto profile = TRY(
                    seccomp_profile(seccomp_request(security),
                                    capability_sets["bounding"].get<std::vector<std::string>>()))) {
                guest["seccomp"] = std::move(*profile);
            }
        }
        // Kubelet always says which paths; a client without a security context gets the usual ones.
        const bool told = config.linux().has_security_context();
        guest["maskedPaths"] = told ? to_vector(security.masked_paths()) : kDefaultMasked;
        guest["readonlyPaths"] = told ? to_vector(security.readonly_paths()) : kDefaultReadonly;
    }
    const json planned_mounts = TRY(mounts(input));
    json spec = {
        {"ociVersion", "1.0.2"},
        {"process", std::move(process)},
        {"root", {{"path", input.rootfs}, {"readonly", security.readonly_rootfs()}}},
        {"hostname", input.hostname},
        {"mounts", planned_mounts},
        {"annotations", annotations(input)},
        {"linux", std::move(guest)},
    };
    if (input.kernel == Kernel::kNode) {
        TRY(add_native(spec, input));
    }
    TRY(add_cdi_devices(spec, input));
    try {
        return spec.dump(1);
    } catch (const json::exception& e) {
        return invalid_argument(
            std::string("config: a value is not UTF-8, which config.json cannot carry: ") +
            e.what());
    }
}

}  // namespace moat::cri
