#pragma once

#include "kernel/mm/address_space.h"
#include "kernel/task/task.h"

namespace moat::kernel {

// Some calls guest threads make directly to the host, within what the host's filter allows
// (kernel/platform/filter.h). Here are the cases in which the sentry has more to do about such a
// call than the filter can, and has to see each.

/// The groups of direct calls of which the sentry has to see each that the task makes: all under
/// strace, those of which a seccomp filter of the guest's looks at more than the number, and calls
/// on memory where there is a RLIMIT_AS or RLIMIT_DATA.
uint8_t calls_to_be_seen(const Task& task);

/// Ends direct calls of all threads of `mm`, for good: the caller's before its call under way
/// returns, others' as soon as they can be called in. No lock may be held.
void end_direct_calls(AddressSpace& mm, uint8_t groups);

/// After something of the task changed that calls_to_be_seen() looks at.
void review_direct_calls(Task& task);

}  // namespace moat::kernel
