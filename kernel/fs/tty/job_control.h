#pragma once

// What terminals ask of the process tree, in the caller's terms. Each function takes the task
// table's lock itself; a Tty's lock may be held.

#include <cstdint>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

RefPtr<Session> session_of(Task& task);
RefPtr<ProcessGroup> process_group_of(Task& task);
/// The task's process made its session (setsid(2)).
bool leads_session(Task& task);
/// No member has a parent in another group of the same session (POSIX "orphaned process group").
bool is_orphaned(ProcessGroup& group);
/// The task blocks the signal, or its action is SIG_IGN.
bool ignores_or_blocks(Task& task, int signal);

}  // namespace moat::kernel
