#pragma once

#include <string>

#include "runtime/native/record.h"

namespace moat::runtime {

/// The container's root: an overlay at rootfs(), what it writes in upper(), over the image's tree
/// `lower`, which stays as it is.
Status mount_root(const NativeContainer& container, const std::string& lower);
/// Takes away whatever is mounted there, however often: a killed moatd may have tried twice.
/// Nothing mounted, or nothing there: success.
Status unmount_all(const std::string& at);

}  // namespace moat::runtime
