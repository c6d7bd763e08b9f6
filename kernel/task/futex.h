#pragma once

#include <cstdint>

#include "kernel/base/result.h"
#include "kernel/mm/user_ptr.h"
#include "kernel/task/block.h"

namespace moat::kernel {

class Task;

/// futex(2); words with owners below.
Result<int64_t> futex_wait(Task& task, GuestAddr address, uint32_t expected, uint32_t bits,
                           bool is_private, int64_t deadline_ns, bool has_deadline);
Result<int64_t> futex_wake(Task& task, GuestAddr address, int count, uint32_t bits,
                           bool is_private);
Result<int64_t> futex_requeue(Task& task, GuestAddr from, GuestAddr to, int wake, int requeue,
                              const uint32_t* expected, bool is_private);
Result<int64_t> futex_wake_op(Task& task, GuestAddr first, GuestAddr second, int wake_first,
                              int wake_second, uint32_t operation, bool is_private);
/// FUTEX_LOCK_PI, FUTEX_LOCK_PI2 and (kNo) FUTEX_TRYLOCK_PI: EAGAIN where it would block. EDEADLK,
/// ESRCH: the owner that the word names is gone.
enum class MayBlock : bool { kNo, kYes };
Result<int64_t> futex_lock_pi(Task& task, GuestAddr address, bool is_private, MayBlock may_block,
                              Deadline deadline);
/// EPERM: the caller does not own it.
Result<int64_t> futex_unlock_pi(Task& task, GuestAddr address, bool is_private);
/// A task ends: locks of its that others wait for are theirs, with FUTEX_OWNER_DIED.
void exit_pi_locks(Task& task);
/// CLONE_CHILD_CLEARTID: wakes one waiter, private or shared.
void futex_wake_one(Task& task, GuestAddr address);
/// set_robust_list(2): marks the locks that an ending task still holds and wakes a waiter of each.
void exit_robust_list(Task& task);

}  // namespace moat::kernel
