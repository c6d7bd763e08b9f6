#pragma once

#include "kernel/fs/file.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

/// What is ready on `file` now, with Linux's synonyms: whoever says EPOLLIN means EPOLLRDNORM too,
/// and EPOLLOUT means EPOLLWRNORM.
inline PollMask ready_mask(File& file) {
    PollMask ready = file.poll();
    if ((ready & EPOLLIN) != 0) {
        ready |= EPOLLRDNORM;
    }
    if ((ready & EPOLLOUT) != 0) {
        ready |= EPOLLWRNORM;
    }
    return ready;
}

/// What to register for at a wait queue so that no event of `events` is missed.
constexpr PollMask wake_mask(PollMask events) {
    PollMask mask = events | EPOLLERR | EPOLLHUP;
    if ((events & EPOLLRDNORM) != 0) {
        mask |= EPOLLIN;
    }
    if ((events & EPOLLWRNORM) != 0) {
        mask |= EPOLLOUT;
    }
    return mask;
}

}  // namespace moat::kernel
