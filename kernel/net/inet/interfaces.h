#pragma once

#include <cstdint>

#include "kernel/base/result.h"

namespace moat::kernel {

class Task;

/// Whether `command` asks about network interfaces (netdevice(7)). Linux answers these on a socket
/// of any family (net/socket.c:sock_do_ioctl), and libc asks on a unix one.
bool is_interface_ioctl(uint32_t command);

/// Answers an is_interface_ioctl() from the network namespace that the sentry lives in, asking on
/// the host's socket `host_fd`; -1: on one made for this question. What would change an interface
/// is not among them.
Result<int64_t> interface_ioctl(Task& task, int host_fd, uint32_t command, uint64_t argument);

}  // namespace moat::kernel
