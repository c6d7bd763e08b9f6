#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>

#include "kernel/platform/host_process.h"

namespace moat::platform {

/// A zygote's clean processes, refilled behind the guests' backs by one thread for all zygotes.
struct HostProcess::Pool {
    std::deque<RefPtr<HostProcess>> ready;  // pool_mu
    bool wanted = false;                    // pool_mu; queued in to_refill
    static std::mutex pool_mu;
    static std::condition_variable pool_cv;
    static std::deque<RefPtr<HostProcess>> to_refill;  // pool_mu
    static bool running;                               // pool_mu
    static void refill_loop();
};

}  // namespace moat::platform
