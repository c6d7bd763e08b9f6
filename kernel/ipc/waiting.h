#pragma once

// How calls on semaphores and message queues sleep: whoever makes one possible carries it out for
// the sleeper, under the object's lock, so that nobody who comes later can be quicker (Linux does
// the same: update_queue(), pipelined_send()). The sleeper's continuation only fetches the result.

#include <list>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/task/task.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

/// One sleeping call. In its object's list until it is done; guarded by the object's lock.
class IpcWaiter : public RefCounted {
  public:
    explicit IpcWaiter(Task& sleeper) : task(&sleeper) {}

    RefPtr<Task> task;
    bool done = false;
    Status result;  ///< once it is done

    /// Off the list it goes by its owner. The task is told when the caller's WakeScope ends.
    void finish(Status with) {
        done = true;
        result = with;
        WakeScope::post(task, EPOLLIN);
    }
};

}  // namespace moat::kernel
