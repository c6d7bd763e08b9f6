#pragma once

#include "kernel/base/ref_ptr.h"
#include "kernel/platform/host_process.h"

namespace moat::platform {

/// Looks after a thread that was kicked in guest code until it has come into the stub. A guest can
/// block the kick's host signal by returning through a forged frame; one that then computes on
/// without answering is killed. Cheap: nothing is looked at for threads that answer within
/// kKickPatienceMs. Starts its own thread when it is first needed.
void watch_kick(RefPtr<HostThread> thread);

/// Processor time of a host thread in nanoseconds, as the host tells it: exact to a tick. One that
/// was used before has that of its former users too. 0: it has ended.
uint64_t thread_cpu_ns(const HostThread& thread);

/// How long a kicked thread is left alone, in milliseconds.
inline constexpr int kKickPatienceMs = 100;

}  // namespace moat::platform
