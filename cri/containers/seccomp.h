#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cri/base/error.h"

namespace runtime::v1 {
class SecurityProfile;
}

namespace moat::cri {

namespace api = ::runtime::v1;

/// A seccomp profile of a request, in the form it was given. CRI: the message, if it is there, wins
/// over the deprecated string of earlier kubelets ("runtime/default", "localhost/PATH",
/// "unconfined").
struct SeccompRequest {
    const api::SecurityProfile* profile = nullptr;
    std::string deprecated_path;
    std::string field;  ///< for errors: "linux.security_context.seccomp"
};

/// Of a pod's or a container's security context, which have these fields of the same names.
template <typename Security>
SeccompRequest seccomp_request(const Security& security) {
    return {security.has_seccomp() ? &security.seccomp() : nullptr, security.seccomp_profile_path(),
            "linux.security_context.seccomp"};
}

/// linux.seccomp for it; nothing: unconfined, which no profile at all means too. A localhost
/// profile is read from the node's file, in the form of OCI's linux.seccomp. EINVAL for a profile
/// that is none, also where the file is missing or not JSON.
Result<std::optional<nlohmann::json>> seccomp_profile(const SeccompRequest& request,
                                                      const std::vector<std::string>& bounding);

/// The node has no AppArmor: a localhost profile cannot be kept, the default is none.
Status check_apparmor(const api::SecurityProfile* profile, const std::string& deprecated,
                      const std::string& field);

}  // namespace moat::cri
