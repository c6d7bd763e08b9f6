#pragma once

#include <cstdint>

#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/platform/shared_area.h"

namespace moat::platform {

class HostProcess;

/// The shared memory of one host process: a memfd, mapped into the sentry.
struct Area {
    ScopedFd fd;
    void* address = nullptr;
};

/// A zeroed area, used before or new.
Result<Area> take_area();
/// For the next process, after all that the last one left there has been wiped. No process may have
/// it mapped any more. `slot` is the one that the next process is most likely to use.
void give_back_area(Area area, int slot);
/// Maps an area whose memfd a new process made.
Result<Area> map_area(ScopedFd fd);

/// Publishes order number `order`, already described in the header, and wakes the spawner.
void post_order(volatile AreaHeader& header, uint32_t order);
/// Waits until `*word` is `value`. ESRCH: the process died or does not answer.
Status wait_for_word(volatile uint32_t* word, uint32_t value, const HostProcess& process);
/// Waits until `*word` is not 0.
Status wait_for_nonzero(volatile int64_t* word, const HostProcess& process);
/// Wakes the receiver on the notifier's CPU (Linux 6.6): 4 us instead of 48 a call on two CPUs.
void enable_sync_wake_up(int listener);

}  // namespace moat::platform
