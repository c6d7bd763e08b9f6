#pragma once

#include "kernel/base/ref_ptr.h"
#include "kernel/boot/sandbox.h"
#include "kernel/task/container.h"

namespace moat::kernel {

/// Number 1 of the pid namespace that a pod's containers share, as the pause process of other
/// runtimes is: it lives as long as the pod, whoever loses its parent becomes its child and is
/// collected, nobody inside can end it, and containers come and go beside it. A guest program of
/// our own, /pause in a root that has nothing else; its container is in no list. `like`: the
/// container for which it is made, whose user and IPC namespaces it is in.
Outcome<RefPtr<Container>> start_pause(const control::ContainerPlan& like,
                                       const RefPtr<PidNamespace>& pids,
                                       const RefPtr<IpcNamespace>& ipc);

}  // namespace moat::kernel
