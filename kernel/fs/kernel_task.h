#pragma once

namespace moat::kernel {

class Task;

/// A task that never runs, with root's credentials and no files: the caller of file systems when
/// the kernel itself wants something of them (boot, copying up).
Task& kernel_task();

}  // namespace moat::kernel
