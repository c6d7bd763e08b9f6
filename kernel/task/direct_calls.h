#pragma once

#include "kernel/mm/address_space.h"
#include "kernel/task/task.h"

namespace moat::kernel {

// Calls on its own address space a guest thread makes directly to the host, within what the host's
// filter allows (kernel/platform/filter.h). These are the cases in which the sentry has more to do
// about such a call than the filter can, and has to see each.

/// Whether the sentry need not see the task's calls on its address space: no RLIMIT_AS to be kept,
/// no seccomp filter of the guest's that looks at more than such a call's number, no strace.
bool may_call_directly(const Task& task);

/// Ends the direct calls of all threads of `mm`, for good: the caller's before its call under way
/// returns, others' as soon as they can be called in. No lock may be held.
void end_direct_calls(AddressSpace& mm);

/// After something of the task changed that may_call_directly() looks at.
void review_direct_calls(Task& task);

}  // namespace moat::kernel
