#include "fsgofer/server/plan.h"

#include <string.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "fsgofer/protocol/messages.h"

namespace moat::gofer {

namespace {

using Json = nlohmann::json;

SetupError bad_plan(std::string what) { return {EINVAL, "plan: " + std::move(what)}; }

SetupResult<std::string> string_member(const Json& object, const char* key) {
    const auto it = object.find(key);
    if (it == object.end() || !it->is_string()) {
        return bad_plan(std::string(key) + " is missing or not a string");
    }
    const auto& text = it->get_ref<const std::string&>();
    if (text.find('\0') != std::string::npos) {
        return bad_plan(std::string(key) + " has a NUL in it");
    }
    return text;
}

SetupResult<GoferMount> parse_mount(const Json& object) {
    if (!object.is_object()) {
        return bad_plan("a mount is not an object");
    }
    for (const auto& [key, value] : object.items()) {
        if (key != "source" && key != "destination" && key != "read_only" && key != "options") {
            return bad_plan("unknown member of a mount: " + key);
        }
    }
    GoferMount mount;
    mount.source = TRY(string_member(object, "source"));
    mount.destination = TRY(string_member(object, "destination"));
    if (!mount.source.starts_with('/')) {
        return bad_plan("source is not an absolute path: " + mount.source);
    }
    if (!mount.destination.starts_with('/') || mount.destination.size() > kMaxPath) {
        return bad_plan("destination is not an absolute path: " + mount.destination);
    }
    if (const auto it = object.find("read_only"); it != object.end()) {
        if (!it->is_boolean()) {
            return bad_plan("read_only is not a boolean");
        }
        mount.read_only = it->get<bool>();
    }
    if (const auto it = object.find("options"); it != object.end()) {
        if (!it->is_array()) {
            return bad_plan("options is not an array");
        }
        for (const Json& option : *it) {
            if (!option.is_string()) {
                return bad_plan("an option is not a string");
            }
            mount.options.push_back(option.get_ref<const std::string&>());
        }
    }
    return mount;
}

}  // namespace

SetupError SetupError::from_errno(int code, std::string step) {
    return {code, std::move(step) + ": " + strerror(code)};
}

SetupResult<GoferPlan> parse_plan(std::string_view text) {
    const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) {
        return bad_plan("not a JSON object");
    }
    for (const auto& [key, value] : json.items()) {
        if (key != "id" && key != "mounts") {
            return bad_plan("unknown member: " + key);
        }
    }
    GoferPlan plan;
    plan.id = TRY(string_member(json, "id"));
    const auto mounts = json.find("mounts");
    if (mounts == json.end() || !mounts->is_array() || mounts->empty()) {
        return bad_plan("mounts is missing or empty");
    }
    if (mounts->size() > kMaxMounts) {
        return bad_plan("too many mounts");
    }
    for (const Json& mount : *mounts) {
        plan.mounts.push_back(TRY(parse_mount(mount)));
        const auto options = parse_options(plan.mounts.back());
        if (!options.ok()) {
            return options.error();
        }
    }
    return plan;
}

SetupResult<GoferPlan> read_plan(int fd) {
    std::string text;
    char buffer[16 << 10];
    while (true) {
        const ssize_t n = ::read(fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return SetupError::from_errno(errno, "read the plan");
        }
        if (n == 0) {
            return parse_plan(text);
        }
        text.append(buffer, static_cast<size_t>(n));
        if (text.size() > kMaxPlanBytes) {
            return SetupError::from_errno(EFBIG, "read the plan");
        }
    }
}

SetupResult<MountOptions> parse_options(const GoferMount& mount) {
    MountOptions o;
    o.read_only = mount.read_only;
    for (const std::string& option : mount.options) {
        if (option == "ro") {
            o.read_only = true;
        } else if (option == "ro-top") {
            o.read_only_top = true;
        } else if (option == "noexec") {
            o.no_exec = true;
        } else if (option == "dev") {
            o.no_dev = false;
        } else if (option == "noatime") {
            o.no_atime = true;
        } else if (option == "connect") {
            o.connect = true;
        } else if (option == "devices") {
            o.devices = true;
        } else if (option == "fifos") {
            o.fifos = true;
        } else if (option == "slave" || option == "rslave") {
            o.slave = true;
        } else if (option != "rw" && option != "bind" && option != "rbind" && option != "suid" &&
                   option != "nosuid" && option != "nodev" && option != "exec" &&
                   option != "private" && option != "rprivate") {
            return bad_plan("unknown option of the mount at " + mount.destination + ": " + option);
        }
    }
    return o;
}

uint32_t MountOptions::flags() const {
    return (read_only ? kMountReadOnly : 0u) | (no_exec ? kMountNoExec : 0u) |
           (no_suid ? kMountNoSuid : 0u) | (no_dev ? kMountNoDev : 0u) |
           (connect ? kMountConnect : 0u) | (devices ? kMountDevices : 0u) |
           (fifos ? kMountFifos : 0u);
}

}  // namespace moat::gofer
