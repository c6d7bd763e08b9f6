#pragma once

#include "kernel/base/result.h"

namespace moat::kernel {

/// No capabilities, no new privileges: before the zygote is made, which every guest process comes
/// from.
Status drop_privileges();
/// A filter that kills the sentry at any call that is not on its list. After the platform has
/// started (the zygote must not inherit it) and before the first guest instruction. Applies to all
/// threads.
Status install_sentry_filter();

}  // namespace moat::kernel
