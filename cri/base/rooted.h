#pragma once

#include <cstdint>
#include <string>

#include "cri/base/error.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

/// openat2(2) with RESOLVE_IN_ROOT: `dir_fd` is the root of all absolute paths, links and `..`, so
/// nothing in a hostile tree leads out of it. Magic links and (by RESOLVE_NO_XDEV) mounts are
/// refused.
Result<ScopedFd> open_in_root(int dir_fd, const std::string& path, int flags, uint32_t mode = 0);

/// A regular file of an image, at most `max_bytes` of it (EFBIG beyond).
Result<std::string> read_in_root(const std::string& root, const std::string& path,
                                 size_t max_bytes);

}  // namespace moat::cri
