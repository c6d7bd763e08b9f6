#include "cri/containers/native_spec.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "api.pb.h"
#include "cri/base/files.h"
#include "cri/base/texts.h"
#include "cri/containers/capabilities.h"
#include "cri/containers/seccomp.h"
#include "runtime/spec/spec.h"

namespace moat::cri {

using nlohmann::json;

namespace {

bool may_raise_limits() { return prctl(PR_CAPBSET_READ, CAP_SYS_RESOURCE) == 1; }

json device_entry(const std::string& path, const struct stat& st) {
    return {{"path", path},
            {"type", S_ISBLK(st.st_mode) ? "b" : "c"},
            {"major", major(st.st_rdev)},
            {"minor", minor(st.st_rdev)},
            {"fileMode", st.st_mode & 07777},
            {"uid", st.st_uid},
            {"gid", st.st_gid}};
}

/// All device nodes below `from`, at the same places below `to`; those that every container has of
/// its own are left out.
void add_devices(const std::string& from, const std::string& to, const std::string& access,
                 json& devices, json& rules) {
    DIR* directory = opendir(from.c_str());
    if (directory == nullptr) {
        return;
    }
    while (const dirent* entry = readdir(directory)) {
        const std::string name = entry->d_name;
        static const char* const kOwn[] = {".", "..", "pts", "shm", "fd", "mqueue", "console"};
        struct stat st {};
        if (std::find(std::begin(kOwn), std::end(kOwn), name) != std::end(kOwn) ||
            fstatat(dirfd(directory), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            continue;
        }
        if (S_ISDIR(st.st_mode)) {
            add_devices(from + "/" + name, to + "/" + name, access, devices, rules);
        } else if (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode)) {
            json device = device_entry(to + "/" + name, st);
            if (!access.empty()) {
                rules.push_back({{"allow", true},
                                 {"type", device["type"]},
                                 {"major", device["major"]},
                                 {"minor", device["minor"]},
                                 {"access", access}});
            }
            devices.push_back(std::move(device));
        }
    }
    closedir(directory);
}

Status add_requested_device(const api::Device& device, json& devices, json& rules) {
    const std::string field = "config.devices: " + in_quotes(device.host_path());
    TRY(check_absolute_path(device.host_path(), field + ": host_path"));
    TRY(check_absolute_path(device.container_path(), field + ": container_path"));
    if (device.permissions().find_first_not_of("rwm") != std::string::npos) {
        return invalid_argument(field + ": permissions: " + in_quotes(device.permissions()));
    }
    const std::string access = device.permissions().empty() ? "rwm" : device.permissions();
    struct stat st {};
    if (stat(device.host_path().c_str(), &st) != 0) {
        return invalid_argument(field + ": " + strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) {
        add_devices(device.host_path(), device.container_path(), access, devices, rules);
        return {};
    }
    if (!S_ISBLK(st.st_mode) && !S_ISCHR(st.st_mode)) {
        return invalid_argument(field + ": not a device");
    }
    json entry = device_entry(device.container_path(), st);
    rules.push_back({{"allow", true},
                     {"type", entry["type"]},
                     {"major", entry["major"]},
                     {"minor", entry["minor"]},
                     {"access", access}});
    devices.push_back(std::move(entry));
    return {};
}

/// What this moatd may not have itself it cannot give, "ALL" and privileged containers included.
void drop_what_we_lack(json& capabilities) {
    for (json& set : capabilities) {
        json kept = json::array();
        for (const json& name : set) {
            const int bit = runtime::capability_bit(name.get<std::string>());
            if (bit < 0 || prctl(PR_CAPBSET_READ, bit) == 1) {
                kept.push_back(name);
            }
        }
        set = std::move(kept);
    }
}

Status add_seccomp(json& spec, const SpecInput& input) {
    const auto& security = input.config.linux().security_context();
    if (security.privileged()) {
        return {};
    }
    const SeccompRequest request = seccomp_request(security);
    const json& bounding = spec["process"]["capabilities"]["bounding"];
    auto profile = TRY(seccomp_profile(request, bounding.get<std::vector<std::string>>()));
    if (profile && !profile->contains("defaultAction")) {
        return invalid_argument(request.field + ": the profile has no defaultAction");
    }
    if (profile) {
        spec["linux"]["seccomp"] = std::move(*profile);
    }
    return {};
}

}  // namespace

Status add_native(json& spec, const SpecInput& input) {
    json devices = json::array();
    json rules = json::array({{{"allow", false}, {"access", "rwm"}}});
    if (input.config.linux().security_context().privileged()) {
        rules = json::array({{{"allow", true}, {"access", "rwm"}}});
        add_devices("/dev", "/dev", "", devices, rules);
    }
    for (const auto& device : input.config.devices()) {
        TRY(add_requested_device(device, devices, rules));
    }
    spec["linux"]["resources"]["devices"] = std::move(rules);
    if (!devices.empty()) {
        spec["linux"]["devices"] = std::move(devices);
    }
    drop_what_we_lack(spec["process"]["capabilities"]);
    TRY(add_seccomp(spec, input));
    if (!may_raise_limits()) {
        // Without CAP_SYS_RESOURCE nothing above our own can be had: a container with less is
        // better than none.
        json& process = spec["process"];
        const auto own = read_file("/proc/self/oom_score_adj", 64);
        if (own.ok() && process.contains("oomScoreAdj")) {
            process["oomScoreAdj"] =
                std::max(process["oomScoreAdj"].get<int>(), atoi(own->c_str()));
        }
        rlimit files{};
        getrlimit(RLIMIT_NOFILE, &files);
        for (json& limit : process["rlimits"]) {
            if (limit["type"] == "RLIMIT_NOFILE") {
                limit["hard"] = std::min<uint64_t>(limit["hard"].get<uint64_t>(), files.rlim_max);
                limit["soft"] =
                    std::min(limit["soft"].get<uint64_t>(), limit["hard"].get<uint64_t>());
            }
        }
    }
    // Mounts that take part in the node's need a root that does not cut them off.
    std::string propagation;
    for (const auto& mount : input.config.mounts()) {
        if (mount.propagation() == api::PROPAGATION_BIDIRECTIONAL) {
            propagation = "rshared";
        } else if (mount.propagation() == api::PROPAGATION_HOST_TO_CONTAINER &&
                   propagation.empty()) {
            propagation = "rslave";
        }
    }
    if (!propagation.empty()) {
        spec["linux"]["rootfsPropagation"] = propagation;
    }
    return {};
}

}  // namespace moat::cri
