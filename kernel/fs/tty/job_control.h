#pragma once

// What terminals ask of the process tree. Each function takes the task table's lock itself; a Tty's
// lock may be held.

#include <cstdint>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

class Tty;

// A session's terminal and its foreground group; the task table guards both (thread_group.h).
RefPtr<Tty> controlling_tty(Session& session);
void set_controlling_tty(Session& session, RefPtr<Tty> tty);
RefPtr<ProcessGroup> foreground_group(Session& session);
void set_foreground_group(Session& session, RefPtr<ProcessGroup> group);

RefPtr<Session> session_of(Task& task);
RefPtr<ProcessGroup> process_group_of(Task& task);
/// The task's process made its session (setsid(2)).
bool leads_session(Task& task);
/// The group `id` as the task's pid namespace numbers it; null: none.
RefPtr<ProcessGroup> find_process_group(Task& task, int32_t id);
/// No member has a parent in another group of the same session (POSIX "orphaned process group").
bool is_orphaned(ProcessGroup& group);
/// The task blocks the signal, or its action is SIG_IGN.
bool ignores_or_blocks(Task& task, int signal);
/// The leader of the session, if it lives.
RefPtr<ThreadGroup> leader_of(Session& session);

}  // namespace moat::kernel
