#pragma once

#include "cri/base/error.h"
#include "cri/handlers/handlers.h"

namespace runtime::v1 {
class ContainerConfig;
class PodSandboxConfig;
}  // namespace runtime::v1

namespace moat::cri {

namespace api = ::runtime::v1;

/// Which of the request's fields cannot be honoured: the first one, by name. EINVAL for a value
/// that is wrong, EOPNOTSUPP for one that is not built. No NUL byte and no unknown enumerator has
/// come this far (server/request_check.h).
Status check_container_config(const api::ContainerConfig& config, const api::PodSandboxConfig& pod,
                              Kernel kernel);
Status check_pod_config(const api::PodSandboxConfig& pod, Kernel kernel);

}  // namespace moat::cri
