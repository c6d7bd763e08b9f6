#pragma once

#include <cstdint>

#include "kernel/base/result.h"
#include "kernel/fs/inode.h"
#include "kernel/fs/path.h"
#include "kernel/task/credentials.h"

namespace moat::kernel {

/// What access is asked for; the values of access(2)'s R_OK, W_OK, X_OK.
enum May : int { kMayExec = 1, kMayWrite = 2, kMayRead = 4 };

/// Capabilities hold over inodes whose owner and group the user namespace maps, and no others
/// (Linux: capable_wrt_inode_uidgid).
bool has_capability_over(const InodeOwner& owner, const Credentials& who, int capability);
/// The generic rule (Linux: fs/namei.c:generic_permission): mode bits of the one class that
/// applies, then CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH over what the user namespace maps.
/// EACCES.
Status generic_permission(const InodeOwner& owner, const Credentials& who, int may);
/// The same for an inode, with its file system's own rules first; also EROFS for writing to a file
/// on a read-only mount when a path is given.
Status check_permission(Task& task, Inode& inode, int may);
Status check_permission(Task& task, const Path& path, int may);
Status check_permission_as(Task& task, Inode& inode, int may, const Credentials& who);
/// EROFS when `path`'s mount is read-only.
Status check_writable_mount(const Path& path);
/// The owner or CAP_FOWNER. EPERM.
Status check_ownership(Task& task, Inode& inode);
/// Whether `who` may remove or rename `victim` from `directory`: write and search permission, and
/// the sticky bit. EACCES, EPERM.
Status check_delete(Task& task, Inode& directory, Inode& victim);
/// Owner, group and mode of what the caller makes in `directory`: set-group-ID directories pass on
/// their group, and the bit to new directories; a file made set-group-ID for a group one is not in
/// loses the bit (Linux: inode_init_owner, mode_strip_sgid). `mode` is with the type, before the
/// umask.
Result<NewInode> new_inode_in(Task& task, Inode& directory, uint32_t mode, uint64_t rdev = 0);
/// The mode that a file is left with once someone without CAP_FSETID has written to it or changed
/// its owner: no set-user-ID, no set-group-ID if the group may execute.
uint32_t mode_without_privilege(uint32_t mode);

}  // namespace moat::kernel
