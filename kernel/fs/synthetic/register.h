#pragma once

namespace moat::kernel {

/// Makes proc, sysfs, dev, devtmpfs, devpts, mqueue, cgroup and the character devices known to the
/// registry. Once, at boot, after set_up_machine().
void register_synthetic_file_systems();

}  // namespace moat::kernel
