#pragma once

#include <vector>

#include "fsgofer/server/plan.h"
#include "fsgofer/server/server.h"
#include "kernel/base/scoped_fd.h"

namespace moat::gofer {

/// The gofer's new root: an empty, read-only tmpfs in which mount N of the plan is entry "N".
struct ConfinedRoot {
    ScopedFd directory;  ///< O_PATH; ServedMount::directory of all
    std::vector<ServedMount> mounts;
};

/// Makes the mounts and pivots into the new root; the host's files are out of reach afterwards.
/// Needs CAP_SYS_ADMIN and a mount namespace of our own.
SetupResult<ConfinedRoot> enter_root(const GoferPlan& plan);

/// Keeps the capabilities that file operations need, and gives up all others for good: bounding and
/// ambient sets, supplementary groups, new privileges by exec. The mount namespace is settled by
/// now, so not even CAP_SYS_CHROOT stays.
SetupResult<> drop_privileges();

/// Kills the process at the first system call that is not on the list (filter.cc).
SetupResult<> install_filter();

/// Raises the soft limit of descriptors to the hard one; how many O_PATH descriptors may be kept
/// open.
size_t claim_descriptors();

}  // namespace moat::gofer
