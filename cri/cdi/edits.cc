#include "cri/cdi/edits.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <set>

#include "cri/base/texts.h"
#include "cri/containers/devices.h"

namespace moat::cri {

namespace {

using nlohmann::json;

/// A typed look at a field, with an error that says where it is. The file is the node owner's, so
/// what is wrong in it is worth the whole path.
template <typename T>
Result<T> field(const json& object, const char* key, const std::string& where, T missing) {
    const auto it = object.find(key);
    if (it == object.end() || it->is_null()) {
        return missing;
    }
    try {
        return it->get<T>();
    } catch (const json::exception&) {
        return invalid_argument(where + "." + key + ": not of the right type");
    }
}

/// Replaces the element of `list` whose `key` is the same, or adds one.
void replace(json& list, const char* key, json element) {
    if (!list.is_array()) {
        list = json::array();
    }
    for (json& old : list) {
        if (old[key] == element[key]) {
            old = std::move(element);
            return;
        }
    }
    list.push_back(std::move(element));
}

Status add_variable(json& spec, const json& entry, const std::string& where) {
    const std::string text = entry.is_string() ? entry.get<std::string>() : "";
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0 || text.find('\0') != std::string::npos) {
        return invalid_argument(where + ": " + in_quotes(text) + ": not NAME=VALUE");
    }
    json& env = spec["process"]["env"];
    const std::string name = text.substr(0, equals + 1);
    for (json& old : env) {
        if (old.get_ref<const std::string&>().rfind(name, 0) == 0) {
            old = text;
            return {};
        }
    }
    env.push_back(text);
    return {};
}

Status add_device_node(json& spec, const json& node, const std::string& where, Kernel kernel) {
    const auto path = TRY(field<std::string>(node, "path", where, ""));
    auto host_path = TRY(field<std::string>(node, "hostPath", where, ""));
    host_path = host_path.empty() ? path : host_path;
    TRY(check_absolute_path(path, where + ".path"));
    TRY(check_absolute_path(host_path, where + ".hostPath"));
    if (kernel == Kernel::kSandbox) {
        return check_sandbox_device(host_path, path, where + ": " + in_quotes(path));
    }
    auto type = TRY(field<std::string>(node, "type", where, ""));
    auto device_major = TRY(field<int64_t>(node, "major", where, 0));
    auto device_minor = TRY(field<int64_t>(node, "minor", where, 0));
    json device = {{"path", path}};
    if (type.empty() || (type != "p" && device_major == 0 && device_minor == 0)) {
        struct stat st {};
        if (stat(host_path.c_str(), &st) != 0) {
            return invalid_argument(where + ": " + in_quotes(host_path) + ": " + strerror(errno));
        }
        const char* found = S_ISBLK(st.st_mode)    ? "b"
                            : S_ISCHR(st.st_mode)  ? "c"
                            : S_ISFIFO(st.st_mode) ? "p"
                                                   : "";
        if (*found == 0 || (!type.empty() && type != "u" && type != found)) {
            return invalid_argument(where + ": " + in_quotes(host_path) +
                                    ": not a device of type " + in_quotes(type));
        }
        type = found;
        device_major = major(st.st_rdev);
        device_minor = minor(st.st_rdev);
        device["fileMode"] = st.st_mode & 07777;
    }
    if (type != "b" && type != "c" && type != "u" && type != "p") {
        return invalid_argument(where + ".type: " + in_quotes(type) + ": not b, c, u or p");
    }
    device["type"] = type;
    device["major"] = device_major;
    device["minor"] = device_minor;
    if (node.contains("fileMode")) {
        device["fileMode"] = TRY(field<uint32_t>(node, "fileMode", where, 0)) & 07777;
    }
    // As the reference implementation: whom the container's process runs as owns it.
    for (const char* id : {"uid", "gid"}) {
        const auto own = spec["process"]["user"].value(id, uint32_t{0});
        if (node.contains(id) || own != 0) {
            device[id] = TRY(field<uint32_t>(node, id, where, own));
        }
    }
    const auto permissions = TRY(field<std::string>(node, "permissions", where, "rwm"));
    if (permissions.find_first_not_of("rwm") != std::string::npos) {
        return invalid_argument(where + ".permissions: " + in_quotes(permissions));
    }
    if (type != "p") {
        spec["linux"]["resources"]["devices"].push_back({{"allow", true},
                                                         {"type", type == "u" ? "c" : type},
                                                         {"major", device_major},
                                                         {"minor", device_minor},
                                                         {"access", permissions}});
    }
    replace(spec["linux"]["devices"], "path", std::move(device));
    return {};
}

Status add_mount(json& spec, const json& mount, const std::string& where) {
    const auto source = TRY(field<std::string>(mount, "hostPath", where, ""));
    const auto destination = TRY(field<std::string>(mount, "containerPath", where, ""));
    const auto type = TRY(field<std::string>(mount, "type", where, ""));
    auto options = TRY(field<std::vector<std::string>>(mount, "options", where, {}));
    TRY(check_absolute_path(source, where + ".hostPath"));
    TRY(check_absolute_path(destination, where + ".containerPath"));
    const auto is_bind = [](const std::string& option) {
        return option == "bind" || option == "rbind";
    };
    if (type.empty() || type == "bind") {
        struct stat st {};
        if (stat(source.c_str(), &st) != 0) {
            return invalid_argument(where + ".hostPath: " + in_quotes(source) + ": " +
                                    strerror(errno));
        }
        if (std::none_of(options.begin(), options.end(), is_bind)) {
            options.push_back("rbind");
        }
    }
    replace(spec["mounts"], "destination",
            {{"destination", destination},
             {"source", source},
             {"type", type.empty() ? "bind" : type},
             {"options", std::move(options)}});
    return {};
}

Status add_hook(json& spec, const json& hook, const std::string& where, Kernel kernel) {
    static const std::set<std::string> kNames = {
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"};
    const auto name = TRY(field<std::string>(hook, "hookName", where, ""));
    const auto path = TRY(field<std::string>(hook, "path", where, ""));
    if (!kNames.contains(name)) {
        return invalid_argument(where + ".hookName: " + in_quotes(name) + ": not one of OCI's");
    }
    TRY(check_absolute_path(path, where + ".path"));
    if (kernel == Kernel::kSandbox) {
        return not_supported(where + ": " + in_quotes(path) +
                             ": a sandboxed pod has no namespaces of the node's that a hook could "
                             "change; the runtime handler \"native\" has");
    }
    json made = {{"path", path}};
    if (auto args = TRY(field<std::vector<std::string>>(hook, "args", where, {})); !args.empty()) {
        made["args"] = std::move(args);
    }
    if (auto env = TRY(field<std::vector<std::string>>(hook, "env", where, {})); !env.empty()) {
        made["env"] = std::move(env);
    }
    if (const auto timeout = TRY(field<int64_t>(hook, "timeout", where, 0)); timeout != 0) {
        made["timeout"] = timeout;
    }
    spec["hooks"][name].push_back(std::move(made));
    return {};
}

Status apply(json& spec, const json& edits, const std::string& where, Kernel kernel) {
    if (!edits.is_object()) {
        return invalid_argument(where + ": not an object");
    }
    for (const auto& [key, list] : edits.items()) {
        const std::string at = where + "." + key;
        if (list.empty()) {
            continue;
        }
        static const std::set<std::string> kKnown = {"env", "additionalGids", "deviceNodes",
                                                     "mounts", "hooks"};
        if (!kKnown.contains(key)) {
            return not_supported(at + ": not built");
        }
        if (!list.is_array()) {
            return invalid_argument(at + ": not a list");
        }
        for (size_t i = 0; i < list.size(); ++i) {
            const json& entry = list[i];
            const std::string one = at + "[" + std::to_string(i) + "]";
            if (key == "env") {
                TRY(add_variable(spec, entry, one));
            } else if (key == "additionalGids") {
                if (!entry.is_number_integer() || entry < 0) {
                    return invalid_argument(one + ": not a group's id");
                }
                if (entry != 0) {
                    spec["process"]["user"]["additionalGids"].push_back(entry);
                }
            } else if (!entry.is_object()) {
                return invalid_argument(one + ": not an object");
            } else if (key == "deviceNodes") {
                TRY(add_device_node(spec, entry, one, kernel));
            } else if (key == "mounts") {
                TRY(add_mount(spec, entry, one));
            } else {
                TRY(add_hook(spec, entry, one, kernel));
            }
        }
    }
    return {};
}

}  // namespace

Status apply_cdi(json& spec, const std::vector<CdiDevice>& devices, Kernel kernel) {
    std::set<const json*> applied;
    for (const CdiDevice& device : devices) {
        const std::string where =
            "CDI device " + in_quotes(device.name) + " of " + device.file + ": containerEdits";
        if (applied.insert(device.common.get()).second) {
            TRY(apply(spec, *device.common, where, kernel));
        }
        TRY(apply(spec, device.edits, where, kernel));
    }
    return {};
}

}  // namespace moat::cri
