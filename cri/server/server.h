#pragma once

#include "cri/base/error.h"
#include "cri/config/config_file.h"

namespace moat::cri {

/// Serves the CRI on the settings' socket until SIGTERM or SIGINT. SIGHUP reads `source` again. The
/// caller has blocked the three signals in all threads. Pods run on when it returns.
Status serve(const Settings& settings, const ConfigSource& source);

}  // namespace moat::cri
