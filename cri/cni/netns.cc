#include "cri/cni/netns.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
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

Status write_id_map(pid_t pid, const char* file, const IdRange& range) {
    const std::string path = "/proc/" + std::to_string(pid) + "/" + file;
    const ScopedFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + path);
    }
    return write_all(fd.get(),
                     "0 " + std::to_string(range.host) + " " + std::to_string(range.length) + "\n",
                     path);
}

/// A process in a new user namespace and a new network namespace of that, kept at `path`.
Status keep_with_user_namespace(const std::string& path, const UserNamespaceIds& ids) {
    int pipe[2];
    if (pipe2(pipe, O_CLOEXEC) != 0) {
        return Error::from_errno(errno, "pipe");
    }
    const ScopedFd hold(pipe[0]);
    const ScopedFd release(pipe[1]);
    // A child of a process with threads: it may make system calls and nothing else. Not vfork(2)'s,
    // since it has to wait for us.
    const pid_t pid = static_cast<pid_t>(
        syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNET | SIGCHLD, nullptr, nullptr, nullptr, 0));
    if (pid == 0) {
        char nothing;
        close(pipe[1]);
        (void)!read(pipe[0], &nothing, 1);
        syscall(SYS_exit_group, 0);
    }
    if (pid < 0) {
        return Error::from_errno(errno, "clone with a user namespace");
    }
    // It ends with us by its pipe. We need not wait for that: other children of ours may have a
    // copy of our end until they execute something.
    const Cleanup reap([&] {
        kill(pid, SIGKILL);
        while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
        }
    });
    TRY(write_id_map(pid, "uid_map", ids.uids));
    TRY(write_id_map(pid, "gid_map", ids.gids));
    const std::string network = "/proc/" + std::to_string(pid) + "/ns/net";
    if (mount(network.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
        return Error::from_errno(errno, "bind the namespace to " + path);
    }
    return {};
}

/// /proc/sys/net is that of the reader's namespace. The sentry has no capabilities, so the host
/// must allow what the guest kernel decides on by itself: low ports and ping.
Status prepare_network_namespace(const std::optional<UserNamespaceIds>& ids) {
    TRY(set_loopback_up());
    TRY(write_sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"));
    // Only groups that the namespace's owner maps can be named.
    const std::string groups =
        ids ? std::to_string(ids->gids.host) + " " +
                  std::to_string(uint64_t{ids->gids.host} + ids->gids.length - 1)
            : "0 2147483647";
    return write_sysctl("/proc/sys/net/ipv4/ping_group_range", groups);
}

}  // namespace

Status create_network_namespace(const std::string& path,
                                const std::optional<UserNamespaceIds>& ids) {
    const ScopedFd file(open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
    if (!file) {
        return Error::from_errno(errno, "create " + path);
    }
    Cleanup undo([&] { (void)remove_network_namespace(path); });
    if (ids) {
        TRY(keep_with_user_namespace(path, *ids));
        TRY(in_network_namespace(path, [&] { return prepare_network_namespace(ids); }));
        undo.release();
        return {};
    }
    TRY(on_own_thread([&]() -> Status {
        if (unshare(CLONE_NEWNET) != 0) {
            return Error::from_errno(errno, "unshare the network namespace");
        }
        TRY(prepare_network_namespace(ids));
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
