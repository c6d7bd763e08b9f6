#pragma once

namespace moat::kernel {

/// Fills /proc/net and /sys/class/net with what the host shows of the pod's own network namespace,
/// which is the sentry's. At boot, before the sentry is confined.
void set_up_network_view();

}  // namespace moat::kernel
