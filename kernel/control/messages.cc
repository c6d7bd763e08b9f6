#include "kernel/control/messages.h"

#include <errno.h>

#include <limits>
#include <type_traits>
#include <utility>

namespace moat::control {

namespace {

template <typename E>
struct EnumName {
    E value;
    const char* name;
};
constexpr EnumName<NetworkMode> kNetworkModes[] = {{NetworkMode::kNone, "none"},
                                                   {NetworkMode::kHost, "host"}};
constexpr EnumName<StdioKind> kStdioKinds[] = {{StdioKind::kNull, "null"},
                                               {StdioKind::kFd, "fd"},
                                               {StdioKind::kCriLog, "cri_log"},
                                               {StdioKind::kTerminal, "terminal"}};
constexpr EnumName<PidNamespace> kPidNamespaces[] = {{PidNamespace::kContainer, "container"},
                                                     {PidNamespace::kPod, "pod"},
                                                     {PidNamespace::kTarget, "target"}};
constexpr EnumName<IpcNamespace> kIpcNamespaces[] = {{IpcNamespace::kPod, "pod"},
                                                     {IpcNamespace::kContainer, "container"}};
constexpr EnumName<ContainerState> kContainerStates[] = {{ContainerState::kCreated, "created"},
                                                         {ContainerState::kRunning, "running"},
                                                         {ContainerState::kPaused, "paused"},
                                                         {ContainerState::kStopped, "stopped"}};

template <typename E, size_t N>
const char* name_of(const EnumName<E> (&table)[N], E value) {
    for (const auto& entry : table) {
        if (entry.value == value) {
            return entry.name;
        }
    }
    return "?";
}

/// Reads the fields of a peer's object. A missing field leaves the default; an ill-typed one, or a
/// number that its field cannot hold, makes finish() fail.
class Reader {
  public:
    explicit Reader(const Json& object) : object_(object), good_(object.is_object()) {}

    void read(const char* key, std::string& out) {
        if (const Json* v = find(key)) {
            read_value(*v, out);
        }
    }
    template <typename T>
    void read(const char* key, T& out) {
        if (const Json* v = find(key)) {
            read_value(*v, out);
        }
    }
    template <typename T>
    void read(const char* key, std::optional<T>& out) {
        if (find(key) != nullptr) {
            out.emplace();
            read(key, *out);
        }
    }
    template <typename E, size_t N>
    void read_enum(const char* key, const EnumName<E> (&table)[N], E& out) {
        const Json* v = find(key);
        if (v == nullptr) {
            return;
        }
        if (const auto* text = v->get_ptr<const std::string*>()) {
            for (const auto& entry : table) {
                if (*text == entry.name) {
                    out = entry.value;
                    return;
                }
            }
        }
        good_ = false;
    }
    template <typename T, typename F>
    void read_list(const char* key, std::vector<T>& out, F from_json) {
        const Json* v = find(key);
        if (v == nullptr) {
            return;
        }
        if (!v->is_array()) {
            good_ = false;
            return;
        }
        for (const Json& item : *v) {
            auto one = from_json(item);
            if (!one.ok()) {
                good_ = false;
                return;
            }
            out.push_back(std::move(one).value());
        }
    }
    template <typename T, typename F>
    void read_object(const char* key, T& out, F from_json) {
        if (const Json* v = find(key)) {
            auto one = from_json(*v);
            if (one.ok()) {
                out = std::move(one).value();
            } else {
                good_ = false;
            }
        }
    }
    void fail_if(bool bad) { good_ &= !bad; }
    template <typename T>
    Result<T> finish(T value) {
        if (!good_) {
            return Errno(EBADMSG);
        }
        return value;
    }

  private:
    const Json* find(const char* key) {
        if (!good_) {
            return nullptr;
        }
        const auto it = object_.find(key);
        return it == object_.end() ? nullptr : &*it;
    }
    void read_value(const Json& v, std::string& out) {
        if (const auto* text = v.get_ptr<const std::string*>()) {
            out = *text;
        } else {
            good_ = false;
        }
    }
    void read_value(const Json& v, bool& out) {
        if (const auto* flag = v.get_ptr<const Json::boolean_t*>()) {
            out = *flag;
        } else {
            good_ = false;
        }
    }
    template <typename I>
    requires(std::is_integral_v<I> && !std::is_same_v<I, bool>) void read_value(const Json& v,
                                                                                I& out) {
        if (const auto* u = v.get_ptr<const Json::number_unsigned_t*>()) {
            if (std::in_range<I>(*u)) {
                out = static_cast<I>(*u);
                return;
            }
        } else if (const auto* i = v.get_ptr<const Json::number_integer_t*>()) {
            if (std::in_range<I>(*i)) {
                out = static_cast<I>(*i);
                return;
            }
        }
        good_ = false;
    }
    template <typename T>
    void read_value(const Json& v, std::vector<T>& out) {
        if (!v.is_array()) {
            good_ = false;
            return;
        }
        for (const Json& item : v) {
            T one{};
            read_value(item, one);
            if (!good_) {
                return;
            }
            out.push_back(std::move(one));
        }
    }
    void read_value(const Json& v, std::map<std::string, std::string>& out) {
        if (!v.is_object()) {
            good_ = false;
            return;
        }
        for (const auto& [key, item] : v.items()) {
            read_value(item, out[key]);
        }
    }

    const Json& object_;
    bool good_;
};

Result<Rlimit> rlimit_from_json(const Json& json) {
    Reader r(json);
    Rlimit limit;
    r.read("type", limit.type);
    r.read("soft", limit.soft);
    r.read("hard", limit.hard);
    return r.finish(std::move(limit));
}

Result<CapabilitySets> capabilities_from_json(const Json& json) {
    Reader r(json);
    CapabilitySets sets;
    r.read("bounding", sets.bounding);
    r.read("effective", sets.effective);
    r.read("inheritable", sets.inheritable);
    r.read("permitted", sets.permitted);
    r.read("ambient", sets.ambient);
    return r.finish(sets);
}

Result<MountPlan> mount_from_json(const Json& json) {
    Reader r(json);
    MountPlan mount;
    r.read("destination", mount.destination);
    r.read("type", mount.type);
    r.read("source", mount.source);
    r.read("gofer_mount", mount.gofer_mount);
    r.read("read_only", mount.read_only);
    r.read("no_exec", mount.no_exec);
    r.read("no_suid", mount.no_suid);
    r.read("no_dev", mount.no_dev);
    r.read("options", mount.options);
    return r.finish(std::move(mount));
}

Result<RootPlan> root_from_json(const Json& json) {
    Reader r(json);
    RootPlan root;
    r.read("overlay", root.overlay);
    r.read("read_only", root.read_only);
    r.read("upper_bytes", root.upper_bytes);
    return r.finish(root);
}

Json mount_to_json(const MountPlan& mount) {
    return {{"destination", mount.destination}, {"type", mount.type},
            {"source", mount.source},           {"gofer_mount", mount.gofer_mount},
            {"read_only", mount.read_only},     {"no_exec", mount.no_exec},
            {"no_suid", mount.no_suid},         {"no_dev", mount.no_dev},
            {"options", mount.options}};
}

}  // namespace

std::string get_string(const Json& object, std::string_view key, std::string fallback) {
    if (object.is_object()) {
        if (const auto it = object.find(std::string(key)); it != object.end()) {
            if (const auto* text = it->get_ptr<const std::string*>()) {
                return *text;
            }
        }
    }
    return fallback;
}

int64_t get_int(const Json& object, std::string_view key, int64_t fallback) {
    if (object.is_object()) {
        if (const auto it = object.find(std::string(key)); it != object.end()) {
            if (const auto* u = it->get_ptr<const Json::number_unsigned_t*>()) {
                return std::in_range<int64_t>(*u) ? static_cast<int64_t>(*u) : fallback;
            }
            if (const auto* i = it->get_ptr<const Json::number_integer_t*>()) {
                return *i;
            }
        }
    }
    return fallback;
}

bool get_bool(const Json& object, std::string_view key, bool fallback) {
    if (object.is_object()) {
        if (const auto it = object.find(std::string(key)); it != object.end()) {
            if (const auto* flag = it->get_ptr<const Json::boolean_t*>()) {
                return *flag;
            }
        }
    }
    return fallback;
}

const char* container_state_name(ContainerState state) { return name_of(kContainerStates, state); }

Result<ContainerState> container_state_from_name(std::string_view name) {
    for (const auto& entry : kContainerStates) {
        if (name == entry.name) {
            return entry.value;
        }
    }
    return Errno(EBADMSG);
}

Json to_json(const SandboxPlan& plan) {
    return {{"id", plan.id},
            {"hostname", plan.hostname},
            {"network", name_of(kNetworkModes, plan.network)},
            {"strace", plan.strace},
            {"log_level", plan.log_level},
            {"cpus", plan.cpus},
            {"memory_bytes", plan.memory_bytes},
            {"sysctls", plan.sysctls},
            {"exit_with", plan.exit_with}};
}

Json to_json(const ProcessPlan& plan) {
    Json rlimits = Json::array();
    for (const Rlimit& limit : plan.rlimits) {
        rlimits.push_back({{"type", limit.type}, {"soft", limit.soft}, {"hard", limit.hard}});
    }
    const CapabilitySets& caps = plan.capabilities;
    return {{"args", plan.args},
            {"env", plan.env},
            {"cwd", plan.cwd},
            {"uid", plan.uid},
            {"gid", plan.gid},
            {"additional_gids", plan.additional_gids},
            {"umask", plan.umask},
            {"capabilities",
             {{"bounding", caps.bounding},
              {"effective", caps.effective},
              {"inheritable", caps.inheritable},
              {"permitted", caps.permitted},
              {"ambient", caps.ambient}}},
            {"rlimits", std::move(rlimits)},
            {"no_new_privileges", plan.no_new_privileges},
            {"terminal", plan.terminal},
            {"console_rows", plan.console_rows},
            {"console_columns", plan.console_columns},
            {"stdin", name_of(kStdioKinds, plan.stdin_kind)},
            {"stdout", name_of(kStdioKinds, plan.stdout_kind)},
            {"stderr", name_of(kStdioKinds, plan.stderr_kind)}};
}

static Json id_map_to_json(const IdMap& map) {
    return {{"host_id", map.host_id}, {"length", map.length}};
}

Json to_json(const ContainerPlan& plan) {
    Json mounts = Json::array();
    for (const MountPlan& mount : plan.mounts) {
        mounts.push_back(mount_to_json(mount));
    }
    return {{"id", plan.id},
            {"hostname", plan.hostname},
            {"root",
             {{"overlay", plan.root.overlay},
              {"read_only", plan.root.read_only},
              {"upper_bytes", plan.root.upper_bytes}}},
            {"mounts", std::move(mounts)},
            {"masked_paths", plan.masked_paths},
            {"readonly_paths", plan.readonly_paths},
            {"pid_namespace", name_of(kPidNamespaces, plan.pid_namespace)},
            {"ipc_namespace", name_of(kIpcNamespaces, plan.ipc_namespace)},
            {"limits", to_json(plan.limits)},
            {"pid_target", plan.pid_target},
            {"seccomp", plan.seccomp},
            {"seccomp_log", plan.seccomp_log},
            {"uid_map", id_map_to_json(plan.uid_map)},
            {"gid_map", id_map_to_json(plan.gid_map)},
            {"process", to_json(plan.process)}};
}

Json to_json(const ShownLimits& limits) {
    Json json = Json::object();
    const auto put = [&](const char* key, const auto& value) {
        if (value) {
            json[key] = *value;
        }
    };
    put("memory_bytes", limits.memory_bytes);
    put("cpu_quota_us", limits.cpu_quota_us);
    put("cpu_period_us", limits.cpu_period_us);
    put("cpu_weight", limits.cpu_weight);
    put("cpus", limits.cpus);
    put("pids", limits.pids);
    return json;
}

Json to_json(const ExitStatus& status) {
    return {{"code", status.code},
            {"signal", status.signal},
            {"oom_killed", status.oom_killed},
            {"finished_at_ns", status.finished_at_ns}};
}

Json to_json(const ProcessInfo& info) {
    return {{"pid", info.pid},
            {"ppid", info.ppid},
            {"host_pid", info.host_pid},
            {"uid", info.uid},
            {"state", info.state},
            {"command", info.command},
            {"cpu_ns", info.cpu_ns},
            {"rss_bytes", info.rss_bytes},
            {"started_at_ns", info.started_at_ns}};
}

Result<SandboxPlan> sandbox_plan_from_json(const Json& json) {
    Reader r(json);
    SandboxPlan plan;
    r.read("id", plan.id);
    r.read("hostname", plan.hostname);
    r.read_enum("network", kNetworkModes, plan.network);
    r.read("strace", plan.strace);
    r.read("log_level", plan.log_level);
    r.read("cpus", plan.cpus);
    r.read("memory_bytes", plan.memory_bytes);
    r.read("sysctls", plan.sysctls);
    r.read("exit_with", plan.exit_with);
    return r.finish(std::move(plan));
}

Result<ProcessPlan> process_plan_from_json(const Json& json) {
    Reader r(json);
    ProcessPlan plan;
    r.read("args", plan.args);
    r.read("env", plan.env);
    r.read("cwd", plan.cwd);
    r.read("uid", plan.uid);
    r.read("gid", plan.gid);
    r.read("additional_gids", plan.additional_gids);
    r.read("umask", plan.umask);
    r.read_object("capabilities", plan.capabilities, capabilities_from_json);
    r.read_list("rlimits", plan.rlimits, rlimit_from_json);
    r.read("no_new_privileges", plan.no_new_privileges);
    r.read("terminal", plan.terminal);
    r.read("console_rows", plan.console_rows);
    r.read("console_columns", plan.console_columns);
    r.read_enum("stdin", kStdioKinds, plan.stdin_kind);
    r.read_enum("stdout", kStdioKinds, plan.stdout_kind);
    r.read_enum("stderr", kStdioKinds, plan.stderr_kind);
    r.fail_if(plan.umask > 0777);
    return r.finish(std::move(plan));
}

Result<ShownLimits> shown_limits_from_json(const Json& json) {
    Reader r(json);
    ShownLimits limits;
    r.read("memory_bytes", limits.memory_bytes);
    r.read("cpu_quota_us", limits.cpu_quota_us);
    r.read("cpu_period_us", limits.cpu_period_us);
    r.read("cpu_weight", limits.cpu_weight);
    r.read("cpus", limits.cpus);
    r.read("pids", limits.pids);
    return r.finish(std::move(limits));
}

namespace {

Result<IdMap> id_map_from_json(const Json& json) {
    Reader r(json);
    IdMap map;
    r.read("host_id", map.host_id);
    r.read("length", map.length);
    return r.finish(map);
}

}  // namespace

Result<ContainerPlan> container_plan_from_json(const Json& json) {
    Reader r(json);
    ContainerPlan plan;
    r.read("id", plan.id);
    r.read("hostname", plan.hostname);
    r.read_object("root", plan.root, root_from_json);
    r.read_list("mounts", plan.mounts, mount_from_json);
    r.read("masked_paths", plan.masked_paths);
    r.read("readonly_paths", plan.readonly_paths);
    r.read_enum("pid_namespace", kPidNamespaces, plan.pid_namespace);
    r.read_enum("ipc_namespace", kIpcNamespaces, plan.ipc_namespace);
    r.read_object("limits", plan.limits, shown_limits_from_json);
    r.read("pid_target", plan.pid_target);
    r.read("seccomp", plan.seccomp);
    r.read("seccomp_log", plan.seccomp_log);
    r.fail_if(plan.seccomp.size() > 4096);
    r.read_object("uid_map", plan.uid_map, id_map_from_json);
    r.read_object("gid_map", plan.gid_map, id_map_from_json);
    r.read_object("process", plan.process, process_plan_from_json);
    return r.finish(std::move(plan));
}

Result<ExitStatus> exit_status_from_json(const Json& json) {
    Reader r(json);
    ExitStatus status;
    r.read("code", status.code);
    r.read("signal", status.signal);
    r.read("oom_killed", status.oom_killed);
    r.read("finished_at_ns", status.finished_at_ns);
    return r.finish(status);
}

Result<ProcessInfo> process_info_from_json(const Json& json) {
    Reader r(json);
    ProcessInfo info;
    r.read("pid", info.pid);
    r.read("ppid", info.ppid);
    r.read("host_pid", info.host_pid);
    r.read("uid", info.uid);
    r.read("state", info.state);
    r.read("command", info.command);
    r.read("cpu_ns", info.cpu_ns);
    r.read("rss_bytes", info.rss_bytes);
    r.read("started_at_ns", info.started_at_ns);
    return r.finish(std::move(info));
}

}  // namespace moat::control
