#pragma once

#include <string>

#include "runtime/native/record.h"

namespace moat::runtime {

/// The container's root: an overlay at rootfs(), what it writes in upper(), over the image's tree
/// `lower`, which stays as it is. In a pod with a user namespace the tree's ids are those inside.
Status mount_root(const NativeContainer& container, const NativePod& pod, const std::string& lower);
/// The user namespace that a network namespace belongs to (ioctl_ns(2)).
Result<ScopedFd> user_namespace_of(const std::string& network_namespace);
/// Takes away whatever is mounted there, however often: a killed moatd may have tried twice.
/// Nothing mounted, or nothing there: success.
Status unmount_all(const std::string& at);

}  // namespace moat::runtime
