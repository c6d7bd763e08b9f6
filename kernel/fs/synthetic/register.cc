#include "kernel/fs/synthetic/register.h"

#include "kernel/fs/cgroupfs/cgroupfs.h"
#include "kernel/fs/dev/devices.h"
#include "kernel/fs/devpts/devpts.h"
#include "kernel/fs/mqueue/mqueue.h"
#include "kernel/fs/proc/proc.h"
#include "kernel/fs/sys/sysfs.h"

namespace moat::kernel {

void register_synthetic_file_systems() {
    register_proc();
    register_sysfs();
    register_devices();
    register_devpts();
    register_mqueue();
    register_cgroupfs();
}

}  // namespace moat::kernel
