#include <errno.h>

#include "kernel/base/log.h"
#include "runtime/spec/fields.h"
#include "runtime/spec/spec.h"
#include "runtime/util/files.h"

namespace moat::runtime {

namespace {

Status read_capability_set(const Fields& caps, const char* key, uint64_t& mask) {
    std::vector<std::string> names;
    TRY(caps.read(key, names));
    for (const std::string& name : names) {
        const int bit = capability_bit(name);
        if (bit < 0 && name.rfind("CAP_", 0) != 0) {
            return caps.error(key, "capability names that begin with CAP_", name);
        }
        if (bit < 0) {
            // As runc does: a newer kernel's capability is not one that this kernel could give.
            LOG(kWarning, "spec", "unknown capability %s is ignored", name.c_str());
            continue;
        }
        mask |= 1ull << bit;
    }
    return {};
}

bool is_rlimit(const std::string& name) {
    static const char* const kNames[] = {
        "AS",   "CORE",   "CPU",   "DATA", "FSIZE",  "LOCKS",  "MEMLOCK",    "MSGQUEUE",
        "NICE", "NOFILE", "NPROC", "RSS",  "RTPRIO", "RTTIME", "SIGPENDING", "STACK"};
    for (const char* known : kNames) {
        if (name == std::string("RLIMIT_") + known) {
            return true;
        }
    }
    return false;
}

Status read_process(const Fields& p, SpecProcess& out) {
    TRY(p.read("terminal", out.terminal));
    TRY(p.object("consoleSize", [&](const Fields& size) -> Status {
        TRY(size.read("height", out.console_rows));
        return size.read("width", out.console_columns);
    }));
    TRY(p.object("user", [&](const Fields& user) -> Status {
        TRY(user.read("uid", out.uid));
        TRY(user.read("gid", out.gid));
        TRY(user.read("umask", out.umask));
        if (out.umask && *out.umask > 0777) {
            return user.error("umask", "at most 0777 (511)");
        }
        return user.read("additionalGids", out.additional_gids);
    }));
    TRY(p.read("args", out.args));
    TRY(p.read("env", out.env));
    TRY(p.read("cwd", out.cwd));
    if (out.cwd.empty() || out.cwd[0] != '/') {
        return p.error("cwd", "an absolute path", out.cwd);
    }
    TRY(p.object("capabilities", [&](const Fields& caps) -> Status {
        TRY(read_capability_set(caps, "bounding", out.capabilities.bounding));
        TRY(read_capability_set(caps, "effective", out.capabilities.effective));
        TRY(read_capability_set(caps, "inheritable", out.capabilities.inheritable));
        TRY(read_capability_set(caps, "permitted", out.capabilities.permitted));
        return read_capability_set(caps, "ambient", out.capabilities.ambient);
    }));
    TRY(p.objects("rlimits", [&](const Fields& r) -> Status {
        control::Rlimit limit;
        TRY(r.read("type", limit.type));
        TRY(r.read("soft", limit.soft));
        TRY(r.read("hard", limit.hard));
        if (!is_rlimit(limit.type)) {
            return r.error("type", "a limit of setrlimit(2) such as RLIMIT_NOFILE", limit.type);
        }
        if (limit.soft > limit.hard) {
            return r.error("soft", "at most the hard limit", limit.soft);
        }
        for (const auto& other : out.rlimits) {
            if (other.type == limit.type) {
                return r.error("type", "each type only once", limit.type);
            }
        }
        out.rlimits.push_back(std::move(limit));
        return {};
    }));
    TRY(p.read("noNewPrivileges", out.no_new_privileges));
    return p.read("oomScoreAdj", out.oom_score_adj);
}

Status read_resources(const Fields& r, cgroups::Limits& out) {
    TRY(r.object("memory", [&](const Fields& m) -> Status {
        TRY(m.read("limit", out.memory_bytes));
        TRY(m.read("swap", out.memory_swap_bytes));
        return m.read("reservation", out.memory_reservation_bytes);
    }));
    TRY(r.object("cpu", [&](const Fields& c) -> Status {
        TRY(c.read("quota", out.cpu_quota_us));
        TRY(c.read("period", out.cpu_period_us));
        TRY(c.read("shares", out.cpu_shares));
        TRY(c.read("cpus", out.cpuset_cpus));
        return c.read("mems", out.cpuset_mems);
    }));
    TRY(r.object("pids", [&](const Fields& p) { return p.read("limit", out.pids); }));
    TRY(r.objects("hugepageLimits", [&](const Fields& h) -> Status {
        std::string size;
        uint64_t limit = 0;
        TRY(h.read("pageSize", size));
        TRY(h.read("limit", limit));
        if (size.empty() || size.find('/') != std::string::npos) {
            return h.error("pageSize", "a size such as 2MB", size);
        }
        out.huge_pages[size] = limit;
        return {};
    }));
    return r.read("unified", out.unified);
}

Status read_hooks(const Fields& hooks, const char* key, std::vector<SpecHook>& out) {
    return hooks.objects(key, [&](const Fields& h) -> Status {
        SpecHook hook;
        TRY(h.read("path", hook.path));
        if (hook.path.empty() || hook.path[0] != '/') {
            return h.error("path", "an absolute path", hook.path);
        }
        TRY(h.read("args", hook.args));
        TRY(h.read("env", hook.env));
        TRY(h.read("timeout", hook.timeout_s));
        if (h.has("timeout") && hook.timeout_s <= 0) {
            return h.error("timeout", "seconds above 0", hook.timeout_s);
        }
        out.push_back(std::move(hook));
        return {};
    });
}

Status read_id_map(const Fields& l, const char* key, std::optional<control::IdMap>& out) {
    return l.objects(key, [&](const Fields& m) -> Status {
        uint32_t container_id = 0;
        control::IdMap map;
        TRY(m.read("containerID", container_id));
        TRY(m.read("hostID", map.host_id));
        TRY(m.read("size", map.length));
        if (out || container_id != 0 || map.length == 0) {
            return m.error("containerID", "one range of ids, from 0 on", container_id);
        }
        out = map;
        return {};
    });
}

Status read_linux(const Fields& l, Spec& out) {
    TRY(l.objects("namespaces", [&](const Fields& n) -> Status {
        SpecNamespace ns;
        TRY(n.read("type", ns.type));
        TRY(n.read("path", ns.path));
        for (const char* known :
             {"pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"}) {
            if (ns.type == known) {
                if (out.find_namespace(ns.type) != nullptr) {
                    return n.error("type", "each type only once", ns.type);
                }
                out.namespaces.push_back(std::move(ns));
                return {};
            }
        }
        return n.error("type", "pid, network, mount, ipc, uts, user, cgroup or time", ns.type);
    }));
    TRY(l.object("resources", [&](const Fields& r) { return read_resources(r, out.limits); }));
    TRY(l.read("cgroupsPath", out.cgroups_path));
    TRY(l.read("maskedPaths", out.masked_paths));
    TRY(l.read("readonlyPaths", out.readonly_paths));
    TRY(l.object("seccomp", [&](const Fields& s) -> Status {
        out.seccomp = TRY(read_seccomp(s));
        return {};
    }));
    TRY(read_id_map(l, "uidMappings", out.uid_map));
    TRY(read_id_map(l, "gidMappings", out.gid_map));
    // The sentry takes the ids of files as they are on the disk, which is what mounts with ids
    // mapped like the namespace's show. Without that they would have to be shifted.
    const auto mapped = out.annotations.find("dev.moat.idmapped-root");
    if ((out.uid_map || out.gid_map) &&
        (mapped == out.annotations.end() || mapped->second != "true")) {
        return Error(EOPNOTSUPP,
                     "linux.uidMappings: built only for bundles whose files are id-mapped like the "
                     "namespace (annotation dev.moat.idmapped-root)");
    }
    return l.read("sysctl", out.sysctl);
}

Status read_spec(const Fields& top, Spec& out) {
    TRY(top.expect_object());
    std::string version;
    TRY(top.read("ociVersion", version));
    if (version.rfind("1.", 0) != 0) {
        return top.error("ociVersion", "1.x", version);
    }
    if (!top.has("root")) {
        return top.error("root", "an object with the container's root");
    }
    TRY(top.object("root", [&](const Fields& root) -> Status {
        TRY(root.read("path", out.root_path));
        TRY(root.read("readonly", out.root_readonly));
        return out.root_path.empty() ? root.error("path", "the path of the root file system")
                                     : Status();
    }));
    if (!top.has("process")) {
        return top.error("process", "an object with the process to run");
    }
    TRY(top.object("process", [&](const Fields& p) -> Status {
        TRY(read_process(p, out.process));
        return out.process.args.empty() ? p.error("args", "at least one argument") : Status();
    }));
    TRY(top.read("hostname", out.hostname));
    TRY(top.objects("mounts", [&](const Fields& m) -> Status {
        SpecMount mount;
        TRY(m.read("destination", mount.destination));
        TRY(m.read("type", mount.type));
        TRY(m.read("source", mount.source));
        TRY(m.read("options", mount.options));
        if (mount.destination.empty()) {
            return m.error("destination", "a path inside the container");
        }
        if (mount.destination[0] != '/') {
            mount.destination.insert(0, "/");  // OCI 1.0 allowed it, relative to the root
        }
        out.mounts.push_back(std::move(mount));
        return {};
    }));
    TRY(top.object("hooks", [&](const Fields& h) -> Status {
        TRY(read_hooks(h, "prestart", out.hooks.prestart));
        TRY(read_hooks(h, "createRuntime", out.hooks.create_runtime));
        TRY(read_hooks(h, "createContainer", out.hooks.create_container));
        TRY(read_hooks(h, "startContainer", out.hooks.start_container));
        TRY(read_hooks(h, "poststart", out.hooks.poststart));
        return read_hooks(h, "poststop", out.hooks.poststop);
    }));
    TRY(top.read("annotations", out.annotations));
    return top.object("linux", [&](const Fields& l) { return read_linux(l, out); });
}

}  // namespace

const SpecNamespace* Spec::find_namespace(const std::string& type) const {
    for (const SpecNamespace& ns : namespaces) {
        if (ns.type == type) {
            return &ns;
        }
    }
    return nullptr;
}

Result<Spec> parse_spec(const std::string& text, const std::string& file) {
    const Json json = TRY(parse_json(text, file));
    Spec spec;
    TRY(read_spec(Fields(json, file), spec));
    return spec;
}

Result<Spec> load_spec(const std::string& bundle) {
    const std::string file = bundle + "/config.json";
    return parse_spec(TRY(read_whole_file(file)), file);
}

Result<SpecProcess> parse_process(const std::string& text, const std::string& file) {
    const Json json = TRY(parse_json(text, file));
    const Fields top(json, file);
    TRY(top.expect_object());
    SpecProcess process;
    TRY(read_process(top, process));
    if (process.args.empty()) {
        return top.error("args", "at least one argument");
    }
    return process;
}

Result<cgroups::Limits> parse_resources(const std::string& text, const std::string& file) {
    const Json json = TRY(parse_json(text, file));
    const Fields top(json, file);
    TRY(top.expect_object());
    cgroups::Limits limits;
    TRY(read_resources(top, limits));
    return limits;
}

Result<Placement> placement_of(const std::map<std::string, std::string>& annotations) {
    const auto get = [&](const char* key) {
        const auto it = annotations.find(key);
        return it == annotations.end() ? std::string() : it->second;
    };
    std::string type = get("io.kubernetes.cri.container-type");
    std::string sandbox = get("io.kubernetes.cri.sandbox-id");
    if (type.empty()) {
        type = get("io.kubernetes.cri-o.ContainerType");
        sandbox = get("io.kubernetes.cri-o.SandboxID");
    }
    if (type.empty()) {
        return Placement{};
    }
    if (type == "sandbox") {
        return Placement{ContainerRole::kSandbox, ""};
    }
    if (type == "container") {
        if (sandbox.empty()) {
            return Error(EINVAL, "annotations: a container of a pod needs the pod's sandbox id");
        }
        return Placement{ContainerRole::kJoins, sandbox};
    }
    return Error(EINVAL,
                 "annotations: container type is \"" + type + "\", expected sandbox or container");
}

}  // namespace moat::runtime
