#pragma once

#include "kernel/base/result.h"
#include "kernel/control/plan.h"

namespace moat::kernel {

/// Starts threads and registers file systems and devices. Once, before the sentry is confined.
Status start_subsystems(const control::SandboxPlan& plan);

}  // namespace moat::kernel
