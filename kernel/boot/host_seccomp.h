#pragma once

#include "kernel/base/result.h"

namespace moat::kernel {

/// Confines the sentry itself: no capabilities, no new privileges, and a filter that kills it at any
/// call that is not on its list. After the platform has started (the zygote must not inherit the
/// filter) and before the first guest instruction. Applies to all threads.
Status confine_sentry();

}  // namespace moat::kernel
