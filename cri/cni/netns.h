#pragma once

#include <functional>
#include <string>

#include "cri/base/error.h"

namespace moat::cri {

/// Makes a network namespace with loopback up, in which every port may be bound and ping needs no
/// capability, and keeps it by a bind mount at `path` (an empty file that is made for it).
Status create_network_namespace(const std::string& path);
/// Unmounts and removes `path`. What is not there, or is no mount any more, is a success.
Status remove_network_namespace(const std::string& path);
/// Runs `f` on a thread of its own that is in the namespace at `path`.
Status in_network_namespace(const std::string& path, const std::function<Status()>& f);

}  // namespace moat::cri
