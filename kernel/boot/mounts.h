#pragma once

#include <string>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/boot/sandbox.h"
#include "kernel/fs/tty/tty.h"

namespace moat::kernel {

class MountNamespace;

/// Carries out the mounts of the container's plan. `gofer` is the socket to its gofer.
Outcome<RefPtr<MountNamespace>> build_container_mounts(Container& container, ScopedFd gofer);
/// A new terminal of the container's /dev/pts.
Outcome<RefPtr<Tty>> allocate_terminal(Container& container, uint32_t uid, uint32_t gid);
/// What the container's writable layer holds.
void upper_usage(MountNamespace& mounts, uint64_t& bytes, uint64_t& inodes);
/// mkdir -p, as root would.
Status make_directory_path(Task& task, const std::string& path);

}  // namespace moat::kernel
