#pragma once

#include "cri/server/checked_services.h"
#include "cri/server/rpc_server.h"

namespace moat::cri {

/// All methods of both services. One that is missing here answers UNIMPLEMENTED, which e2e/cri's
/// walk over the CRI's own description notices.
void add_methods(RpcServer& server, CheckedRuntimeService& runtime, CheckedImageService& images);

}  // namespace moat::cri
