#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "cri/base/error.h"

namespace moat::cri {

/// `length` ids from 0 on inside, from `host` on outside.
struct IdRange {
    uint32_t host = 0;
    uint32_t length = 0;
};
struct UserNamespaceIds {
    IdRange uids, gids;
};

/// Makes a network namespace with loopback up, in which every port may be bound and ping needs no
/// capability, and keeps it by a bind mount at `path` (an empty file that is made for it). With
/// `ids` it belongs to a new user namespace, which lives as long (ioctl_ns(2), NS_GET_USERNS).
Status create_network_namespace(const std::string& path,
                                const std::optional<UserNamespaceIds>& ids = std::nullopt);
/// Unmounts and removes `path`. What is not there, or is no mount any more, is a success.
Status remove_network_namespace(const std::string& path);
/// Runs `f` on a thread of its own that is in the namespace at `path`.
Status in_network_namespace(const std::string& path, const std::function<Status()>& f);

}  // namespace moat::cri
