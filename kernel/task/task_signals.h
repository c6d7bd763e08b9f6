#pragma once

#include "kernel/base/result.h"
#include "kernel/mm/user_ptr.h"
#include "kernel/task/signal.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

class Task;

enum class Delivery : uint8_t {
    kReturn,     ///< go on in the guest
    kExit,       ///< this task has to end: its group ends, or another thread execs
    kExitGroup,  ///< a signal has ended the group, this task included
    kStop,       ///< held until SIGCONT or SIGKILL
};

/// What is due before the guest runs on: handlers' frames, stops, ends. In the stub.
Delivery deliver_signals(Task& task);
/// A fault of the task itself: cannot be blocked or ignored.
void force_signal(Task& task, const SignalInfo& info);
/// Its group ends, or another of its threads execs.
bool group_is_exiting(const Task& task);

/// ppoll(2) and its like: copies in the mask and makes it the task's until the call has ended. A
/// null `mask` changes nothing. EINVAL: `size` is not 8; EFAULT.
Status set_temporary_mask(Task& task, UserPtr<const uint64_t> mask, size_t size);

/// rt_sigprocmask(2)'s effect.
void set_signal_mask(Task& task, uint64_t mask);
SignalAction signal_action(const ThreadGroup& group, int signal);
/// sigaction(2)'s effect: pending signals that become ignored are dropped. Returns the old one.
SignalAction set_signal_action(Task& task, int signal, const SignalAction& action);
/// For execve(2): handlers become defaults, in a table of the group's own.
void reset_signal_actions(ThreadGroup& group);
/// /proc/PID/status: which signals are ignored and which have handlers.
void signal_sets(const ThreadGroup& group, uint64_t& ignored, uint64_t& caught);
uint64_t group_pending_signals(const ThreadGroup& group);

// signal_frame.cc
/// Builds the handler's frame on the guest's stack from the task's registers. EFAULT: the stack is
/// not writable.
Status push_signal_frame(Task& task, const SignalInfo& info, const SignalAction& action,
                         uint64_t mask_to_restore);
/// rt_sigreturn(2).
Status pop_signal_frame(Task& task);

}  // namespace moat::kernel
