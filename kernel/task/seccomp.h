#pragma once

namespace moat::kernel {

class Task;

/// Asks the task's seccomp filters, or strict mode, about the call in task.arguments(). False: it
/// is not to be made, and the task has been answered, sent a signal, taken to the stub for that, or
/// ended.
bool seccomp_admits(Task& task);

}  // namespace moat::kernel
