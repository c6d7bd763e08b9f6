#pragma once

// Handlers of what waits: pipes, epoll, eventfd, poll, timers, sockets. Included by
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
Result<int64_t> sys_pselect6(Task& task, int count, UserPtr<uint64_t> read, UserPtr<uint64_t> write,
                             UserPtr<uint64_t> except, UserPtr<timespec> timeout,
                             UserPtr<const SelectMask> mask);

// sys_signalfd.cc
Result<Fd> sys_signalfd(Task& task, Fd fd, UserPtr<const uint64_t> mask, size_t size);
Result<Fd> sys_signalfd4(Task& task, Fd fd, UserPtr<const uint64_t> mask, size_t size,
                         uint32_t flags);

// sys_socket.cc
Result<Fd> sys_socket(Task& task, int domain, int type, int protocol);
Status sys_socketpair(Task& task, int domain, int type, int protocol, UserPtr<int32_t> fds);
Status sys_bind(Task& task, Fd fd, UserPtr<const uint8_t> address, int size);
Status sys_listen(Task& task, Fd fd, int backlog);
Result<int64_t> sys_accept(Task& task, Fd fd, UserPtr<uint8_t> address, UserPtr<int32_t> size);
Result<int64_t> sys_accept4(Task& task, Fd fd, UserPtr<uint8_t> address, UserPtr<int32_t> size,
                            uint32_t flags);
Result<int64_t> sys_connect(Task& task, Fd fd, UserPtr<const uint8_t> address, int size);
Status sys_getsockname(Task& task, Fd fd, UserPtr<uint8_t> address, UserPtr<int32_t> size);
Status sys_getpeername(Task& task, Fd fd, UserPtr<uint8_t> address, UserPtr<int32_t> size);
Status sys_shutdown(Task& task, Fd fd, int how);
Status sys_setsockopt(Task& task, Fd fd, int level, int name, UserPtr<const uint8_t> value,
                      int size);
Status sys_getsockopt(Task& task, Fd fd, int level, int name, UserPtr<uint8_t> value,
                      UserPtr<int32_t> size);

// sys_message.cc
Result<int64_t> sys_sendto(Task& task, Fd fd, GuestAddr data, size_t size, int flags,
                           UserPtr<const uint8_t> address, int address_size);
Result<int64_t> sys_recvfrom(Task& task, Fd fd, GuestAddr data, size_t size, int flags,
                             UserPtr<uint8_t> address, UserPtr<int32_t> address_size);
Result<int64_t> sys_sendmsg(Task& task, Fd fd, UserPtr<const msghdr> message, int flags);
Result<int64_t> sys_recvmsg(Task& task, Fd fd, UserPtr<msghdr> message, int flags);
Result<int64_t> sys_sendmmsg(Task& task, Fd fd, UserPtr<mmsghdr> messages, uint32_t count,
                             int flags);
Result<int64_t> sys_recvmmsg(Task& task, Fd fd, UserPtr<mmsghdr> messages, uint32_t count,
                             int flags, UserPtr<const timespec> timeout);

// sys_timerfd.cc
Result<Fd> sys_timerfd_create(Task& task, int clock, uint32_t flags);
Status sys_timerfd_settime(Task& task, Fd fd, uint32_t flags, UserPtr<const itimerspec> value,
                           UserPtr<itimerspec> old);
Status sys_timerfd_gettime(Task& task, Fd fd, UserPtr<itimerspec> value);

// sys_time.cc
Result<int64_t> sys_time(Task& task, UserPtr<int64_t> t);
Status sys_gettimeofday(Task& task, UserPtr<timeval> tv, UserPtr<struct timezone> tz);
Status sys_clock_gettime(Task& task, int clock, UserPtr<timespec> t);
Status sys_clock_getres(Task& task, int clock, UserPtr<timespec> t);
Result<int64_t> sys_nanosleep(Task& task, UserPtr<const timespec> wanted,
                              UserPtr<timespec> remaining);
Result<int64_t> sys_clock_nanosleep(Task& task, int clock, uint32_t flags,
                                    UserPtr<const timespec> wanted, UserPtr<timespec> remaining);

// sys_timer.cc
Status sys_getitimer(Task& task, int which, UserPtr<itimerval> value);
Status sys_setitimer(Task& task, int which, UserPtr<const itimerval> value, UserPtr<itimerval> old);
Result<int64_t> sys_alarm(Task& task, uint32_t seconds);
/// struct sigevent as the kernel knows it: 64 bytes.
struct UserSigevent {
    uint64_t value;
    int32_t signal;
    int32_t notify;
    int32_t thread;
    uint8_t padding[44];
};
static_assert(sizeof(UserSigevent) == 64);
Status sys_timer_create(Task& task, int clock, UserPtr<const UserSigevent> event,
                        UserPtr<int32_t> id);
Status sys_timer_settime(Task& task, int32_t id, uint32_t flags, UserPtr<const itimerspec> value,
                         UserPtr<itimerspec> old);
Status sys_timer_gettime(Task& task, int32_t id, UserPtr<itimerspec> value);
Result<int64_t> sys_timer_getoverrun(Task& task, int32_t id);
Status sys_timer_delete(Task& task, int32_t id);

}  // namespace moat::kernel
