#include "runtime/sandbox/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/base/cleanup.h"

namespace moat::runtime {

namespace {

/// Shared with the child, which runs in our memory while we are suspended.
struct Child {
    const SpawnRequest* request;
    char** argv;
    char** envp;
    int* moved;                    ///< scratch: request->fds moved out of the way
    char* second_stack = nullptr;  ///< its top; for the child's child, if there is one
    pid_t second = 0;
    const char* failed_step = nullptr;
    int error = 0;
};

[[noreturn]] void fail(Child& c, const char* step) {
    c.error = errno;
    c.failed_step = step;
    ::_exit(127);
}

/// From here on: async-signal-safe, no allocation, raw calls where libc would act on the whole
/// process (glibc's setuid signals all threads, and ours are not the child's).
void enter_empty_root(Child& c) {
    // Nothing that we do may show in the host's namespace, nor its later mounts in ours.
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        fail(c, "make the mounts private");
    }
    // /proc is the one directory that every host has; the new root is built over it.
    constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (::mount("moat", "/proc", "tmpfs", kFlags, "mode=755,size=16k,nr_inodes=8") != 0) {
        fail(c, "mount the empty root");
    }
    if (::mkdir("/proc/proc", 0555) != 0) {
        fail(c, "make /proc in the empty root");
    }
    if (::mount("proc", "/proc/proc", "proc", kFlags, nullptr) != 0) {
        fail(c, "mount proc at /proc");
    }
    if (::chdir("/proc") != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0) {
        fail(c, "pivot into the empty root");
    }
    // The old root now lies over the new one at ".".
    if (::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0) {
        fail(c, "unmount the host's root");
    }
    if (::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | kFlags, nullptr) != 0) {
        fail(c, "make the empty root read-only");
    }
}

int become(void* arg) {
    Child& c = *static_cast<Child*>(arg);
    const SpawnRequest& r = *c.request;
    // Handlers are copied by clone and would run in our memory: none may be left before the mask is
    // opened again.
    struct sigaction dfl;
    memset(&dfl, 0, sizeof dfl);
    dfl.sa_handler = SIG_DFL;
    for (int sig = 1; sig < NSIG; sig++) {
        ::sigaction(sig, &dfl, nullptr);
    }
    ::setsid();
    if (r.network_namespace >= 0 && ::setns(r.network_namespace, CLONE_NEWNET) != 0) {
        fail(c, "join the network namespace");
    }
    if (r.loopback_up) {
        const int s = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        ifreq request{};
        strcpy(request.ifr_name, "lo");
        request.ifr_flags = IFF_UP | IFF_RUNNING;
        if (s < 0 || ::ioctl(s, SIOCSIFFLAGS, &request) != 0) {
            fail(c, "bring up its loopback interface");
        }
        ::close(s);
        // Guests may bind low ports by their own kernel's rules; the sentry, which asks the host,
        // has no capability there. The namespace is new and the sandbox's own.
        const int ports =
            ::open("/proc/sys/net/ipv4/ip_unprivileged_port_start", O_WRONLY | O_CLOEXEC);
        if (ports < 0 || ::write(ports, "0", 1) != 1) {
            fail(c, "open low ports in its network namespace");
        }
        ::close(ports);
    }
    if (r.oom_score_adj != nullptr) {
        const int s = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        [[maybe_unused]] const ssize_t n =
            s < 0 ? 0 : ::write(s, r.oom_score_adj, strlen(r.oom_score_adj));
        ::close(s);
    }
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) {
        fail(c, "open /dev/null");
    }
    // Everything that is kept is first moved above the numbers that it will get.
    const int floor = 3 + static_cast<int>(r.fds.size());
    const int executable = ::fcntl(r.executable, F_DUPFD_CLOEXEC, floor);
    const int error_fd = ::fcntl(r.stderr_fd >= 0 ? r.stderr_fd : null, F_DUPFD_CLOEXEC, floor);
    const int output_fd = ::fcntl(r.stdout_fd >= 0 ? r.stdout_fd : null, F_DUPFD_CLOEXEC, floor);
    const int null_fd = ::fcntl(null, F_DUPFD_CLOEXEC, floor);
    if (executable < 0 || error_fd < 0 || output_fd < 0 || null_fd < 0) {
        fail(c, "move descriptors");
    }
    for (size_t i = 0; i < r.fds.size(); i++) {
        c.moved[i] = ::fcntl(r.fds[i], F_DUPFD_CLOEXEC, floor);
        if (c.moved[i] < 0) {
            fail(c, "move descriptors");
        }
    }
    if (::dup2(null_fd, 0) < 0 || ::dup2(output_fd, 1) < 0 || ::dup2(error_fd, 2) < 0) {
        fail(c, "set standard streams");
    }
    for (size_t i = 0; i < r.fds.size(); i++) {
        if (::dup2(c.moved[i], 3 + static_cast<int>(i)) < 0) {
            fail(c, "place descriptors");
        }
    }
    if (::syscall(SYS_close_range, floor, ~0u, CLOSE_RANGE_CLOEXEC) != 0) {
        fail(c, "close the other descriptors");
    }
    if (r.empty_root) {
        enter_empty_root(c);
    }
    if (r.raise_nofile) {
        rlimit limit;
        if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
            limit.rlim_cur = limit.rlim_max;
            ::setrlimit(RLIMIT_NOFILE, &limit);
        }
    }
    ::umask(0);
    if (r.uid) {
        const uid_t id = *r.uid;
        for (int cap = 0; ::prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
            if (::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) {
                fail(c, "drop capabilities");
            }
        }
        if (::syscall(SYS_setgroups, 0, nullptr) != 0 ||
            ::syscall(SYS_setresgid, id, id, id) != 0 ||
            ::syscall(SYS_setresuid, id, id, id) != 0) {
            fail(c, "change user");
        }
    }
    if (r.no_new_privs && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        fail(c, "set no_new_privs");
    }
    // Not ours: `moat run` blocks the signals that it forwards.
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::syscall(SYS_execveat, executable, "", c.argv, c.envp, AT_EMPTY_PATH);
    fail(c, "execute it");
}

int child_main(void* arg) {
    Child& c = *static_cast<Child*>(arg);
    const SpawnRequest& r = *c.request;
    for (const int fd : r.cgroup_fds) {
        if (::write(fd, "0", 1) != 1) {
            fail(c, "join its cgroup");
        }
    }
    if (r.user_namespace < 0) {
        return become(arg);
    }
    if (::setns(r.user_namespace, CLONE_NEWUSER) != 0) {
        fail(c, "join the user namespace");
    }
    if (::syscall(SYS_setgroups, 0, nullptr) != 0 || ::syscall(SYS_setresgid, 0, 0, 0) != 0 ||
        ::syscall(SYS_setresuid, 0, 0, 0) != 0) {
        fail(c, "become root of the user namespace");
    }
    if (::unshare(static_cast<int>(r.namespaces)) != 0) {
        fail(c, "make namespaces of the user namespace");
    }
    // A process namespace is for children only. This one is our caller's child, as we are.
    c.second =
        ::clone(become, c.second_stack, CLONE_VM | CLONE_VFORK | CLONE_PARENT | SIGCHLD, arg);
    if (c.second < 0) {
        fail(c, "clone into the user namespace");
    }
    ::_exit(0);
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> out;
    for (const std::string& s : strings) {
        out.push_back(const_cast<char*>(s.c_str()));
    }
    out.push_back(nullptr);
    return out;
}

}  // namespace

Result<ProcessRef> spawn(const SpawnRequest& request) {
    auto argv = pointers(request.argv);
    auto envp = pointers(request.env);
    std::vector<int> moved(request.fds.size());
    Child child{&request, argv.data(), envp.data(), moved.data()};

    // Two: a child of the child runs while that waits.
    constexpr size_t kStack = 128 << 10;
    void* stack =
        ::mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) {
        return Error::from_errno(errno, "start " + request.name + ": allocate a stack");
    }
    Cleanup unmap([&] { ::munmap(stack, kStack); });

    const int dumpable = ::prctl(PR_GET_DUMPABLE);
    sigset_t all, old_mask;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &old_mask);
    int pidfd = -1;
    const bool in_user_namespace = request.user_namespace >= 0;
    const uint64_t flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD |
                           (in_user_namespace ? 0 : request.namespaces);
    child.second_stack = static_cast<char*>(stack) + kStack / 2;
    const pid_t pid = ::clone(child_main, static_cast<char*>(stack) + kStack,
                              static_cast<int>(flags), &child, &pidfd);
    const int clone_error = errno;
    ::pthread_sigmask(SIG_SETMASK, &old_mask, nullptr);
    if ((request.uid || in_user_namespace) && dumpable == 1) {
        // A change of user makes the memory undumpable, and it was ours.
        ::prctl(PR_SET_DUMPABLE, 1);
    }
    if (pid < 0) {
        return Error::from_errno(clone_error, "start " + request.name + ": clone");
    }
    ScopedFd owned(pidfd);
    if (in_user_namespace || child.failed_step != nullptr) {
        ::waitpid(pid, nullptr, 0);
    }
    if (child.failed_step != nullptr) {
        if (child.second > 0) {
            ::waitpid(child.second, nullptr, 0);
        }
        return Error::from_errno(child.error, "start " + request.name + ": " + child.failed_step);
    }
    const pid_t started = in_user_namespace ? child.second : pid;
    return ProcessRef{started, process_start_time(started)};
}

uint64_t process_start_time(pid_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    ScopedFd fd(::open(path, O_RDONLY | O_CLOEXEC));
    if (!fd) {
        return 0;
    }
    const ssize_t n = ::read(fd.get(), text, sizeof text - 1);
    if (n <= 0) {
        return 0;
    }
    text[n] = '\0';
    // The name in parentheses may hold anything, more parentheses too.
    const char* p = strrchr(text, ')');
    if (p == nullptr || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X') {
        return 0;
    }
    p += 2;  // at field 3
    for (int field = 3; field < 22 && p != nullptr; field++) {
        p = strchr(p + 1, ' ');
    }
    return p == nullptr ? 0 : strtoull(p, nullptr, 10);
}

bool ProcessRef::alive() const {
    return pid > 0 && start_time != 0 && process_start_time(pid) == start_time;
}

Status ProcessRef::kill_and_wait() const {
    if (pid <= 0) {
        return {};
    }
    ScopedFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!fd) {
        return {};
    }
    const uint64_t started = process_start_time(pid);
    if (started != 0 && start_time != 0 && started != start_time) {
        return {};  // the number belongs to somebody else now
    }
    if (started != 0) {
        if (::syscall(SYS_pidfd_send_signal, fd.get(), SIGKILL, nullptr, 0) != 0 &&
            errno != ESRCH) {
            return Error::from_errno(errno, "kill process " + std::to_string(pid));
        }
        pollfd p{fd.get(), POLLIN, 0};
        int ready;
        do {
            ready = ::poll(&p, 1, 5000);
        } while (ready < 0 && errno == EINTR);
        if (ready == 0) {
            return Error(ETIMEDOUT, "process " + std::to_string(pid) + " does not die");
        }
    }
    siginfo_t info;
    // ECHILD: not ours to reap.
    (void)::waitid(P_PIDFD, fd.get(), &info, WEXITED | WNOHANG);
    return {};
}

}  // namespace moat::runtime
