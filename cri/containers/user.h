#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cri/base/error.h"
#include "cri/store/container_store.h"

namespace moat::cri {

/// The request for a user, before the image's /etc/passwd and /etc/group were asked.
struct UserRequest {
    std::optional<int64_t> uid;
    std::optional<int64_t> gid;
    std::string username;    ///< of the request
    std::string image_user;  ///< USER of the image; used when uid and username are not given
    std::vector<int64_t> supplemental_groups;
    /// Merge: the groups of /etc/group that name the user are added (KEP-3619).
    bool merge_image_groups = true;
};

struct ResolvedUser {
    UserIds ids;
    std::string home = "/";
};

/// Looks names up in the image at `rootfs`. The image is hostile: its files are opened below the
/// root whatever links it has, read up to a bound, and only regular files are read. EINVAL: a name
/// that the image does not have, an id out of range, a gid without a user.
Result<ResolvedUser> resolve_user(const std::string& rootfs, const UserRequest& request);

/// The USER of an image as ImageStatus tells it: a number or a name.
struct ImageUser {
    std::optional<int64_t> uid;
    std::string username;
};
ImageUser parse_image_user(const std::string& user);

}  // namespace moat::cri
