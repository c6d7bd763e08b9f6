#pragma once

// Every handler of the table, by the file that holds it. Typed arguments:
// kernel/syscalls/syscall.h.

#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>

#include <cstdint>

#include "kernel/base/result.h"
#include "kernel/fs/fd_table.h"
#include "kernel/mm/user_ptr.h"
#include "kernel/syscalls/handlers_fs.h"
#include "kernel/syscalls/handlers_io.h"
#include "kernel/syscalls/handlers_ipc.h"
#include "kernel/syscalls/handlers_misc.h"
#include "kernel/syscalls/handlers_task.h"
#include "kernel/task/signal.h"

namespace moat::kernel {

class Task;

}  // namespace moat::kernel
