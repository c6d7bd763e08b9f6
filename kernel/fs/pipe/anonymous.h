#pragma once

#include <sys/stat.h>

#include <cstdint>

namespace moat::kernel {

/// A number for the next pipe, socket or anonymous file, unique in the sandbox.
uint64_t next_anonymous_inode();

/// What fstat(2) says of a file without a name; `mode` has the type and the permissions. Owner: the
/// one who made it.
struct stat anonymous_stat(uint64_t ino, uint32_t mode, uint32_t uid, uint32_t gid);

}  // namespace moat::kernel
