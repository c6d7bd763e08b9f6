#pragma once

#include <cstdint>

#include "kernel/base/result.h"
#include "kernel/mm/user_ptr.h"

namespace moat::kernel {

class Task;

/// futex(2) without priority inheritance.
Result<int64_t> futex_wait(Task& task, GuestAddr address, uint32_t expected, uint32_t bits,
                           bool is_private, int64_t deadline_ns, bool has_deadline);
Result<int64_t> futex_wake(Task& task, GuestAddr address, int count, uint32_t bits,
                           bool is_private);
Result<int64_t> futex_requeue(Task& task, GuestAddr from, GuestAddr to, int wake, int requeue,
                              const uint32_t* expected, bool is_private);
Result<int64_t> futex_wake_op(Task& task, GuestAddr first, GuestAddr second, int wake_first,
                              int wake_second, uint32_t operation, bool is_private);
/// CLONE_CHILD_CLEARTID: wakes one waiter, private or shared.
void futex_wake_one(Task& task, GuestAddr address);
/// set_robust_list(2): marks the locks that an ending task still holds and wakes a waiter of each.
void exit_robust_list(Task& task);

}  // namespace moat::kernel
