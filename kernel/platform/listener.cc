#include "kernel/platform/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "kernel/platform/host_process.h"

namespace moat::platform {

Result<Notification> Listener::receive() {
    if (!aside_.empty()) {
        const Notification n = aside_.front();
        aside_.pop_front();
        return n;
    }
    return receive_fresh(-1);
}

Result<Notification> Listener::receive_fresh(int timeout_ms) {
    for (;;) {
        if (timeout_ms >= 0) {
            pollfd p{fd_.get(), POLLIN, 0};
            const int ready = ::poll(&p, 1, timeout_ms);
            if (ready == 0) {
                return Errno(ETIMEDOUT);
            }
        }
        seccomp_notif raw;
        memset(&raw, 0, sizeof raw);
        if (::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_RECV, &raw) == 0) {
            Notification n;
            n.id = raw.id;
            n.tid = static_cast<pid_t>(raw.pid);
            n.number = static_cast<uint32_t>(raw.data.nr);
            n.ip = raw.data.instruction_pointer;
            std::copy(std::begin(raw.data.args), std::end(raw.data.args), n.arguments);
            return n;
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno != ENOENT) {
            return Errno(errno);
        }
        // ENOENT is both "interrupted before you took it" and "no thread is left": ask.
        pollfd p{fd_.get(), POLLIN, 0};
        if (::poll(&p, 1, 0) >= 0 && (p.revents & POLLHUP) != 0) {
            return Errno(ESRCH);
        }
    }
}

bool Listener::reply(uint64_t id, int64_t value) {
    seccomp_notif_resp response{};
    response.id = id;
    if (value < 0 && value >= -4095) {
        response.error = static_cast<int32_t>(value);
    } else {
        response.val = value;
    }
    return ::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SEND, &response) == 0;
}

bool Listener::let_run(uint64_t id) {
    seccomp_notif_resp response{};
    response.id = id;
    response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    return ::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SEND, &response) == 0;
}

Status Listener::lend(uint64_t id, int host_fd, int number) {
    return add_fd(id, host_fd, number, SECCOMP_ADDFD_FLAG_SETFD);
}

Status Listener::lend_and_reply(uint64_t id, int host_fd, int number) {
    return add_fd(id, host_fd, number, SECCOMP_ADDFD_FLAG_SETFD | SECCOMP_ADDFD_FLAG_SEND);
}

Status Listener::add_fd(uint64_t id, int host_fd, int number, uint32_t flags) {
    seccomp_notif_addfd add{};
    add.id = id;
    add.srcfd = static_cast<uint32_t>(host_fd);
    add.newfd = static_cast<uint32_t>(number);
    add.flags = flags;
    add.newfd_flags = O_CLOEXEC;
    if (::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0) {
        return Errno(errno);
    }
    return {};
}

void Listener::add(HostThread* thread) {
    MutexLock lock(mu_);
    threads_.push_back(thread);
}

void Listener::remove(HostThread* thread) {
    MutexLock lock(mu_);
    std::erase(threads_, thread);
}

RefPtr<HostThread> Listener::find(pid_t tid) const {
    MutexLock lock(mu_);
    for (HostThread* thread : threads_) {
        // One whose last reference is just going waits for our lock in its destructor.
        if (thread->tid() == tid && thread->try_ref()) {
            return RefPtr<HostThread>::adopt(thread);
        }
    }
    return nullptr;
}

size_t Listener::thread_count() const {
    MutexLock lock(mu_);
    return threads_.size();
}

}  // namespace moat::platform
