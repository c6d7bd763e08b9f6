#pragma once

// Handlers of what waits: pipes, epoll, eventfd, poll, timers, sockets, System V IPC. Included by
// handlers.h.

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

#include <cstdint>

#include "kernel/base/result.h"
#include "kernel/fs/fd_table.h"
#include "kernel/mm/user_ptr.h"

namespace moat::kernel {

class Task;

// sys_pipe.cc
Status sys_pipe(Task& task, UserPtr<int32_t> fds);
Status sys_pipe2(Task& task, UserPtr<int32_t> fds, uint32_t flags);

// sys_eventfd.cc
Result<Fd> sys_eventfd(Task& task, uint32_t initial);
Result<Fd> sys_eventfd2(Task& task, uint32_t initial, uint32_t flags);

// sys_epoll.cc
Result<Fd> sys_epoll_create(Task& task, int size);
Result<Fd> sys_epoll_create1(Task& task, uint32_t flags);
Status sys_epoll_ctl(Task& task, Fd epfd, int operation, Fd fd, UserPtr<const epoll_event> event);
Result<int64_t> sys_epoll_wait(Task& task, Fd epfd, UserPtr<epoll_event> events, int max_events,
                               int timeout_ms);
Result<int64_t> sys_epoll_pwait(Task& task, Fd epfd, UserPtr<epoll_event> events, int max_events,
                                int timeout_ms, UserPtr<const uint64_t> mask, size_t mask_size);
Result<int64_t> sys_epoll_pwait2(Task& task, Fd epfd, UserPtr<epoll_event> events, int max_events,
                                 UserPtr<const timespec> timeout, UserPtr<const uint64_t> mask,
                                 size_t mask_size);

// sys_poll.cc
Result<int64_t> sys_poll(Task& task, UserPtr<pollfd> fds, uint32_t count, int timeout_ms);
Result<int64_t> sys_ppoll(Task& task, UserPtr<pollfd> fds, uint32_t count,
                          UserPtr<timespec> timeout, UserPtr<const uint64_t> mask,
                          size_t mask_size);
/// Where pselect6's sixth argument leads.
struct SelectMask {
    uint64_t mask;
    uint64_t size;
};
Result<int64_t> sys_select(Task& task, int count, UserPtr<uint64_t> read, UserPtr<uint64_t> write,
                           UserPtr<uint64_t> except, UserPtr<timeval> timeout);
Result<int64_t> sys_pselect6(Task& task, int count, UserPtr<uint64_t> read,
                             UserPtr<uint64_t> write, UserPtr<uint64_t> except,
                             UserPtr<timespec> timeout, UserPtr<const SelectMask> mask);

}  // namespace moat::kernel
