#pragma once

#include "kernel/mm/address_space.h"
#include "kernel/task/task.h"

namespace moat::kernel {

// Some calls guest threads make directly to the host, within what the host's filter allows
// (kernel/platform/filter.h). Here are the cases in which the sentry has more to do about such a
// call than the filter can, and has to see each.

/// The groups of direct calls that the sentry need not see of the task: none under strace or a
/// seccomp filter of the guest's that looks at more than such a call's number, no calls on memory
/// where there is a RLIMIT_AS or RLIMIT_DATA.
uint8_t allowed_direct_calls(const Task& task);

/// Ends direct calls of all threads of `mm`, for good: the caller's before its call under way
/// returns, others' as soon as they can be called in. No lock may be held.
void end_direct_calls(AddressSpace& mm, uint8_t groups);

/// After something of the task changed that allowed_direct_calls() looks at.
void review_direct_calls(Task& task);

}  // namespace moat::kernel
