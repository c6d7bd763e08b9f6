#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "cri/base/error.h"
#include "cri/cni/netns.h"

namespace runtime::v1 {
class IDMapping;
class Mount;
class NamespaceOption;
class PodSandboxConfig;
}  // namespace runtime::v1

namespace moat::cri {

namespace api = ::runtime::v1;

/// Whether the pod has a user namespace of its own (KEP-127). Its configuration has been checked.
bool has_user_namespace(const api::PodSandboxConfig& pod);

/// EINVAL: a mode other than POD and NODE, or mappings that are not one range from id 0 on for
/// users and one for groups, which is what kubelet makes. `where` names the field for messages.
Status check_user_namespace(const api::NamespaceOption& options, const std::string& where);

/// Kubelet maps the ids of every volume as it maps the pod's: what is owned by 5 on the disk is
/// owned by 5 inside. The sentry's ids are the disk's, so that is how it is without any doing.
/// EINVAL: mappings in a pod without a user namespace; EOPNOTSUPP: others than the pod's, or none.
Status check_mount_mappings(const api::Mount& mount, const api::PodSandboxConfig& pod,
                            const std::string& where);

/// EINVAL: a user or group that the pod's user namespace does not map.
Status check_mapped_ids(const api::PodSandboxConfig& pod, uint32_t uid, uint32_t gid,
                        const std::vector<uint32_t>& groups);

/// The node's ids that the pod's are; nothing without a user namespace.
std::optional<UserNamespaceIds> node_ids(const api::PodSandboxConfig& pod);

/// `linux.uidMappings` and `linux.gidMappings` of config.json, into `linux`.
void add_id_mappings(const api::PodSandboxConfig& pod, nlohmann::json& linux_section);

}  // namespace moat::cri
