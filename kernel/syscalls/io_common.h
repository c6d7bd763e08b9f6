#pragma once

// What the handlers of waiting calls have in common.

#include <time.h>

#include <cstdint>

#include "kernel/mm/user_ptr.h"
#include "kernel/task/block.h"
#include "kernel/task/task.h"

namespace moat::kernel {

/// How long a call may wait.
struct Timeout {
    Deadline deadline;
    bool is_zero = false;  ///< do not wait at all

    /// Negative: for ever.
    static Timeout from_ms(int ms);
    static Timeout relative(const timespec& t);
    /// A null pointer: for ever. EFAULT; EINVAL: not a valid time.
    static Result<Timeout> copy_in(Task& task, UserPtr<const timespec> t);
    /// What is left now, never negative.
    timespec remaining() const;
    int64_t remaining_ns() const;
};

}  // namespace moat::kernel
