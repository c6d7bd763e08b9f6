#include "kernel/net/host_poller.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>

#include <thread>
#include <unordered_map>

#include "kernel/base/check.h"
#include "kernel/base/mutex.h"
#include "kernel/base/scoped_fd.h"

namespace moat::kernel {

namespace {

/// Watches by number. A number, not a pointer, goes through the host's epoll, so that an event read
/// just before its watch ended finds nothing.
struct Poller {
    int epoll_fd = -1;  // immutable once started
    Mutex<LockRank::kHostPoller> mu;
    std::unordered_map<uint64_t, HostWatch*> watches GUARDED_BY(mu);
    uint64_t last_id GUARDED_BY(mu) = 0;

    [[noreturn]] void run() {
        pthread_setname_np(pthread_self(), "host-poller");
        epoll_event events[64];
        for (;;) {
            const int n = ::epoll_wait(epoll_fd, events, 64, -1);
            if (n < 0) {
                CHECK(errno == EINTR);
                continue;
            }
            WakeScope scope;
            for (int i = 0; i < n; i++) {
                RefPtr<HostWatch> watch;
                {
                    MutexLock lock(mu);
                    const auto row = watches.find(events[i].data.u64);
                    if (row != watches.end() && row->second->try_ref()) {
                        watch = adopt_ref(row->second);
                    }
                }
                if (watch) {
                    PollMask mask = events[i].events;
                    mask |= (mask & EPOLLIN) != 0 ? EPOLLRDNORM : 0u;
                    mask |= (mask & EPOLLOUT) != 0 ? EPOLLWRNORM : 0u;
                    watch->queue().notify(mask);
                }
            }
        }
    }
};

Poller& poller() {
    static Poller* const instance = new Poller;  // never destroyed: its thread never ends
    return *instance;
}

}  // namespace

Result<RefPtr<HostWatch>> HostWatch::start(int fd) {
    Poller& p = poller();
    CHECK(p.epoll_fd >= 0);
    auto watch = make_ref<HostWatch>(fd);
    {
        MutexLock lock(p.mu);
        watch->id_ = ++p.last_id;
        p.watches.emplace(watch->id_, watch.get());
    }
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;
    event.data.u64 = watch->id_;
    if (::epoll_ctl(p.epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        const Errno error(errno);
        MutexLock lock(p.mu);
        p.watches.erase(watch->id_);
        watch->id_ = 0;
        lock.unlock();
        return error;
    }
    return watch;
}

void HostWatch::stop() {
    Poller& p = poller();
    MutexLock lock(p.mu);
    const uint64_t id = std::exchange(id_, 0);
    if (id == 0) {
        return;
    }
    p.watches.erase(id);
    lock.unlock();
    CHECK(::epoll_ctl(p.epoll_fd, EPOLL_CTL_DEL, fd_, nullptr) == 0);
}

HostWatch::~HostWatch() { CHECK(id_ == 0); }

Status start_host_poller() {
    Poller& p = poller();
    CHECK(p.epoll_fd < 0);
    p.epoll_fd = TRY(host_result(::epoll_create1(EPOLL_CLOEXEC)));
    std::thread([&p] { p.run(); }).detach();
    return {};
}

PollMask poll_host(int fd) {
    pollfd p{fd, POLLIN | POLLOUT | POLLPRI | POLLRDHUP, 0};
    if (::poll(&p, 1, 0) <= 0) {
        return 0;
    }
    return static_cast<uint16_t>(p.revents);
}

}  // namespace moat::kernel
