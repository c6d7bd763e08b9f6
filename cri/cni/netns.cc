#include "cri/cni/netns.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "cri/base/files.h"
#include "kernel/base/cleanup.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

namespace {

/// On a thread, because unshare(2) and setns(2) change only the caller's and no thread of a pool
/// may be left in a pod's namespace.
Status on_own_thread(const std::function<Status()>& f) {
    Status status;
    std::thread([&] { status = f(); }).join();
    return status;
}

Status set_loopback_up() {
    const ScopedFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    if (!fd || ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) {
        return Error::from_errno(errno, "read the flags of lo");
    }
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    if (ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) {
        return Error::from_errno(errno, "bring lo up");
    }
    return {};
}

Status write_sysctl(const char* path, std::string_view value) {
    const ScopedFd fd(open(path, O_WRONLY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, std::string("open ") + path);
    }
    return write_all(fd.get(), value, path);
}

}  // namespace

Status create_network_namespace(const std::string& path) {
    const ScopedFd file(open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
    if (!file) {
        return Error::from_errno(errno, "create " + path);
    }
    Cleanup undo([&] { (void)remove_network_namespace(path); });
    TRY(on_own_thread([&]() -> Status {
        if (unshare(CLONE_NEWNET) != 0) {
            return Error::from_errno(errno, "unshare the network namespace");
        }
        TRY(set_loopback_up());
        // /proc/sys/net is that of the reader's namespace. The sentry has no capabilities, so the
        // host must allow what the guest kernel decides on by itself: low ports and ping.
        TRY(write_sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"));
        TRY(write_sysctl("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"));
        const std::string mine =
            "/proc/self/task/" + std::to_string(syscall(SYS_gettid)) + "/ns/net";
        if (mount(mine.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
            return Error::from_errno(errno, "bind the namespace to " + path);
        }
        return {};
    }));
    undo.release();
    return {};
}

Status remove_network_namespace(const std::string& path) {
    if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL &&
        errno != ENOENT) {
        return Error::from_errno(errno, "unmount " + path);
    }
    if (unlink(path.c_str()) != 0 && errno != ENOENT) {
        return Error::from_errno(errno, "remove " + path);
    }
    return {};
}

Status in_network_namespace(const std::string& path, const std::function<Status()>& f) {
    const ScopedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + path);
    }
    return on_own_thread([&]() -> Status {
        if (setns(fd.get(), CLONE_NEWNET) != 0) {
            return Error::from_errno(errno, "enter " + path);
        }
        return f();
    });
}

}  // namespace moat::cri
