#pragma once

#include "cri/base/error.h"

namespace google::protobuf {
class Message;
}

namespace moat::cri {

/// What no request may have, whatever it asks for. It goes by the messages' own descriptions, so a
/// field of a newer CRI is covered from its first day:
///  - a NUL byte in a text: paths, names and arguments end there for the kernel and not for us;
///  - a number that is none of its enumeration's;
///  - a text, map key or list beyond what any client has a use for (kLongestText, kLongestList);
///  - no id where the request is about one (pod_sandbox_id, container_id).
/// EINVAL names the first such field by its path: "config.mounts[2].host_path".
Status check_request(const google::protobuf::Message& request);

/// An argument of execve(2) can have no more (MAX_ARG_STRLEN); an annotation of Kubernetes has 256
/// KiB with all others.
inline constexpr size_t kLongestText = 256 << 10;
/// A node with thousands of Services gives each container seven variables a Service.
inline constexpr int kLongestList = 200'000;

}  // namespace moat::cri
