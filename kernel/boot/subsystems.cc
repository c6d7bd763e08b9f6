#include "kernel/boot/subsystems.h"

#include "kernel/boot/network_view.h"
#include "kernel/fs/pipe/pipe.h"
#include "kernel/fs/proc/machine.h"
#include "kernel/fs/synthetic/register.h"
#include "kernel/fs/tmpfs/tmpfs.h"
#include "kernel/net/host_poller.h"
#include "kernel/time/timer_queue.h"

namespace moat::kernel {

Status start_subsystems(const control::SandboxPlan& plan) {
    set_up_machine(plan, "seccomp notification");
    start_timer_thread();
    TRY(start_host_poller());
    register_tmpfs();
    register_synthetic_file_systems();
    register_fifos();
    set_up_network_view();
    return {};
}

}  // namespace moat::kernel
