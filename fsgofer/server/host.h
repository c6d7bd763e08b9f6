#pragma once

// The host calls that glibc 2.36 has no wrapper for, and our way of opening names.

#include <string_view>

#include "fsgofer/protocol/messages.h"
#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"

namespace moat::gofer {

/// Opens `path` below `directory` by openat2(2): no symlink in it is followed (with
/// O_PATH|O_NOFOLLOW a last one is opened as itself, otherwise ELOOP), no "..", no magic link.
/// O_CLOEXEC is added.
Result<ScopedFd> open_beneath(int directory, const char* path, uint64_t flags, uint32_t mode = 0);

/// statx(2) of `name` in `directory` without following it; "" is `directory` itself.
Result<Attributes> attributes_of(int directory, const char* name);

/// chmod of what `fd` (O_PATH will do) refers to. ENOSYS before Linux 6.6.
Status chmod_fd(int fd, uint32_t mode);

}  // namespace moat::gofer
