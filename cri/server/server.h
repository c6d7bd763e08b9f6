#pragma once

#include "cri/base/error.h"
#include "cri/base/settings.h"

namespace moat::cri {

/// Serves the CRI on the settings' socket until SIGTERM or SIGINT, which the caller has blocked in
/// all threads. Pods run on when it returns.
Status serve(const Settings& settings);

}  // namespace moat::cri
