#pragma once

#include "kernel/base/result.h"
#include "kernel/boot/sandbox.h"

namespace moat::kernel {

/// Waits for the `boot` request on the listening socket and returns its plan; the connection, to be
/// answered once the sentry is ready.
struct BootRequest {
    ScopedFd connection;
    control::SandboxPlan plan;
    ScopedFd exit_status;  ///< for SandboxPlan::exit_with; may be empty
};
Result<BootRequest> receive_boot(int listening_socket);
void answer_boot(const BootRequest& request, const Outcome<>& outcome);

/// Serves control connections (kernel/control/messages.h) until a `shutdown` request.
void serve_control(int listening_socket, Sandbox& sandbox);

}  // namespace moat::kernel
