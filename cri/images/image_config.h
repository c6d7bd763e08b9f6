#pragma once

#include <string>
#include <vector>

#include "cri/base/error.h"

namespace moat::cri {

/// What a container needs to know of an image's configuration (OCI image-spec, config.md; Docker's
/// v2s2 configuration has the same fields).
struct ImageConfig {
    std::string architecture;
    std::string os;
    std::vector<std::string> diff_ids;  ///< bottom layer first
    std::vector<std::string> env;       ///< KEY=value
    std::vector<std::string> entrypoint;
    std::vector<std::string> cmd;
    std::string working_dir;
    std::string user;         ///< "", "uid", "name", "uid:gid", "name:group", ...
    std::string stop_signal;  ///< "", "SIGTERM", "15", "SIGRTMIN+3", ...
};

/// EINVAL names the field that is missing or of a wrong kind.
Result<ImageConfig> parse_image_config(const std::string& text);

/// Of a STOPSIGNAL; 0 for one that Linux does not have.
int signal_number(const std::string& name);

}  // namespace moat::cri
