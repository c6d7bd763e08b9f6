#include "cri/containers/user_namespace.h"

#include "api.pb.h"

namespace moat::cri {

namespace {

using Mappings = google::protobuf::RepeatedPtrField<api::IDMapping>;

const api::UserNamespace& user_namespace(const api::PodSandboxConfig& pod) {
    return pod.linux().security_context().namespace_options().userns_options();
}

Status check_mapping(const Mappings& mappings, const std::string& field) {
    if (mappings.size() != 1) {
        return invalid_argument(field + ": exactly one mapping is wanted, not " +
                                std::to_string(mappings.size()));
    }
    const auto& mapping = mappings[0];
    if (mapping.container_id() != 0) {
        return invalid_argument(field + ": id 0 of the container is not mapped");
    }
    if (mapping.length() == 0 || mapping.host_id() + mapping.length() < mapping.length()) {
        return invalid_argument(field + ": a range of no ids, or beyond the last one");
    }
    return {};
}

Status check_volume(const Mappings& mappings, bool has_namespace, const Mappings& pods,
                    const std::string& field) {
    if (!has_namespace) {
        return mappings.empty() ? Status()
                                : invalid_argument(field + ": the pod has no user namespace");
    }
    if (mappings.size() != 1 || mappings[0].host_id() != pods[0].host_id() ||
        mappings[0].container_id() != pods[0].container_id() ||
        mappings[0].length() != pods[0].length()) {
        return not_supported(field + ": only the pod's own mapping is built");
    }
    return {};
}

nlohmann::json to_json(const Mappings& mappings) {
    return nlohmann::json::array({{{"containerID", mappings[0].container_id()},
                                   {"hostID", mappings[0].host_id()},
                                   {"size", mappings[0].length()}}});
}

}  // namespace

bool has_user_namespace(const api::PodSandboxConfig& pod) {
    return user_namespace(pod).mode() == api::POD &&
           pod.linux().security_context().namespace_options().has_userns_options();
}

Status check_user_namespace(const api::NamespaceOption& options, const std::string& where) {
    const auto& userns = options.userns_options();
    if (!options.has_userns_options() || userns.mode() == api::NODE) {
        return userns.uids().empty() && userns.gids().empty()
                   ? Status()
                   : invalid_argument(where + ": mappings with mode NODE");
    }
    if (userns.mode() != api::POD) {
        return invalid_argument(where + ".mode: " + api::NamespaceMode_Name(userns.mode()) +
                                ": only POD and NODE");
    }
    TRY(check_mapping(userns.uids(), where + ".uids"));
    return check_mapping(userns.gids(), where + ".gids");
}

Status check_mount_mappings(const api::Mount& mount, const api::PodSandboxConfig& pod,
                            const std::string& where) {
    const bool has = has_user_namespace(pod);
    const auto& userns = user_namespace(pod);
    TRY(check_volume(mount.uidmappings(), has, userns.uids(), where + ": uidMappings"));
    return check_volume(mount.gidmappings(), has, userns.gids(), where + ": gidMappings");
}

Status check_mapped_ids(const api::PodSandboxConfig& pod, uint32_t uid, uint32_t gid,
                        const std::vector<uint32_t>& groups) {
    if (!has_user_namespace(pod)) {
        return {};
    }
    const auto& userns = user_namespace(pod);
    if (uid >= userns.uids(0).length()) {
        return invalid_argument("user " + std::to_string(uid) +
                                ": not mapped by the pod's user namespace");
    }
    const auto check_group = [&](uint32_t id) {
        return id < userns.gids(0).length()
                   ? Status()
                   : invalid_argument("group " + std::to_string(id) +
                                      ": not mapped by the pod's user namespace");
    };
    TRY(check_group(gid));
    for (const uint32_t group : groups) {
        TRY(check_group(group));
    }
    return {};
}

std::optional<UserNamespaceIds> node_ids(const api::PodSandboxConfig& pod) {
    if (!has_user_namespace(pod)) {
        return std::nullopt;
    }
    const auto range = [](const Mappings& mappings) {
        return IdRange{mappings[0].host_id(), mappings[0].length()};
    };
    return UserNamespaceIds{range(user_namespace(pod).uids()), range(user_namespace(pod).gids())};
}

void add_id_mappings(const api::PodSandboxConfig& pod, nlohmann::json& linux_section) {
    if (has_user_namespace(pod)) {
        linux_section["uidMappings"] = to_json(user_namespace(pod).uids());
        linux_section["gidMappings"] = to_json(user_namespace(pod).gids());
    }
}

}  // namespace moat::cri
