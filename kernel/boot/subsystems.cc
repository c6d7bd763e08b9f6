#include "kernel/boot/subsystems.h"

#include "kernel/fs/dev/devices.h"
#include "kernel/fs/devpts/devpts.h"
#include "kernel/fs/pipe/pipe.h"
#include "kernel/fs/proc/proc.h"
#include "kernel/fs/tmpfs/tmpfs.h"
#include "kernel/net/host_poller.h"
#include "kernel/time/timer_queue.h"

namespace moat::kernel {

Status start_subsystems(const control::SandboxPlan&) {
    start_timer_thread();
    TRY(start_host_poller());
    register_tmpfs();
    register_devices();
    register_devpts();
    register_proc();
    register_fifos();
    return {};
}

}  // namespace moat::kernel
