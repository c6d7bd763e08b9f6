#pragma once

#include <cstdint>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"

namespace moat::kernel {

class File;

/// A description over a host descriptor handed over as a standard stream: a pipe, a socket, a file
/// or a terminal of whoever runs the container. Its blocking mode is not touched (it may be shared
/// with the host's shell). `flags`: O_RDONLY or O_WRONLY (or O_RDWR).
Result<RefPtr<File>> make_host_stream(ScopedFd host, uint32_t flags);

}  // namespace moat::kernel
