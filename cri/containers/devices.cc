#include "cri/containers/devices.h"

#include <algorithm>

#include "cri/base/texts.h"

namespace moat::cri {

Status check_sandbox_device(const std::string& host_path, const std::string& container_path,
                            const std::string& field) {
    static const char* const kOwn[] = {"/dev/null",   "/dev/zero",    "/dev/full",
                                       "/dev/random", "/dev/urandom", "/dev/tty"};
    const bool own = std::any_of(std::begin(kOwn), std::end(kOwn),
                                 [&](const char* path) { return host_path == path; });
    if (!own) {
        return not_supported(field +
                             ": a sandboxed pod has a kernel of its own, which does not know the "
                             "node's devices; a pod that needs them runs by the runtime handler "
                             "\"native\"");
    }
    if (container_path != host_path) {
        return not_supported(field + ": at " + in_quotes(container_path) +
                             ": a sandboxed pod has it at its own place only");
    }
    return {};
}

}  // namespace moat::cri
