// getrlimit(2), setrlimit(2), prlimit64(2) and what the limits do.

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

void limit(int resource, rlim_t soft, rlim_t hard) {
    const rlimit value{soft, hard};
    CHILD_THAT(::setrlimit(static_cast<__rlimit_resource>(resource), &value), succeeds());
}

TEST_CASE("rlimit: what was set is read back, the soft never above the hard") {
    in_child([] {
        limit(RLIMIT_NOFILE, 100, 200);
        Fenced<rlimit> now;
        CHILD_THAT(::getrlimit(RLIMIT_NOFILE, now.get()), succeeds());
        CHILD_CHECK(now->rlim_cur == 100 && now->rlim_max == 200);
        CHILD_CHECK(now.intact());
        const rlimit wrong{300, 200};
        CHILD_THAT(::setrlimit(RLIMIT_NOFILE, &wrong), fails_with(EINVAL));
    });
}

TEST_CASE("rlimit: users lower the hard limit but never raise it") {
    in_child([] {
        limit(RLIMIT_NOFILE, 100, 200);
        CHILD_THAT(::setuid(12345), succeeds());
        limit(RLIMIT_NOFILE, 150, 150);
        const rlimit more{150, 200};
        CHILD_THAT(::setrlimit(RLIMIT_NOFILE, &more), fails_with(EPERM));
    });
}

TEST_CASE("rlimit: unknown resources and bad pointers fail") {
    rlimit value;
    CHECK_THAT(::syscall(SYS_getrlimit, 99, &value), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_setrlimit, 99, &value), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_getrlimit, RLIMIT_NOFILE, bad<rlimit>()), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_prlimit64, 0x7ffffff0, RLIMIT_NOFILE, nullptr, &value),
               fails_with(ESRCH));
}

TEST_CASE("prlimit: reads and sets another process's limits, not a stranger's") {
    Child child([] { ::pause(); });
    const rlimit wanted{77, 88};
    rlimit old;
    CHECK_THAT(::prlimit(child.pid(), RLIMIT_NOFILE, &wanted, &old), succeeds());
    rlimit now;
    CHECK_THAT(::prlimit(child.pid(), RLIMIT_NOFILE, nullptr, &now), succeeds());
    CHECK(now.rlim_cur == 77);
    in_child([&] {
        CHILD_THAT(::setuid(12345), succeeds());
        CHILD_THAT(::prlimit(child.pid(), RLIMIT_NOFILE, nullptr, &now), fails_with(EPERM));
    });
}

TEST_CASE("RLIMIT_NOFILE: no descriptor at or above it, EMFILE when all are taken") {
    in_child([] {
        limit(RLIMIT_NOFILE, 20, 20);
        int last = 0;
        for (int i = 0; i < 30; ++i) {
            const int fd = ::dup(1);
            if (fd < 0) {
                break;
            }
            last = fd;
        }
        CHILD_CHECK(last == 19);
        CHILD_THAT(::dup(1), fails_with(EMFILE));
        CHILD_THAT(::open("/proc/version", O_RDONLY), fails_with(EMFILE));
        int fds[2];
        CHILD_THAT(::pipe(fds), fails_with(EMFILE));
        CHILD_THAT(::fcntl(1, F_DUPFD, 20), fails_with(EINVAL));
        CHILD_THAT(::dup2(1, 20), fails_with(EBADF));
        ::close(19);
        CHILD_THAT(::pipe(fds), fails_with(EMFILE));  // one is not enough for two
        CHILD_THAT(::dup(1), succeeds_with(19));
    });
}

TEST_CASE("RLIMIT_AS: stops mappings and the stack of new threads") {
    in_child([] {
        limit(RLIMIT_AS, 256 << 20, 256 << 20);
        CHILD_THAT(::mmap(nullptr, 512 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                   fails_with(ENOMEM));
        CHILD_THAT(::mmap(nullptr, 16 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                   succeeds());
    });
}

TEST_CASE("RLIMIT_AS: holds for a process that maps while somebody sets it, and for its children") {
    Pipe told;
    const pid_t child = ::fork();
    if (child == 0) {
        const auto map = [](size_t size) {
            void* at = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            return at == MAP_FAILED ? errno : ::munmap(at, size);
        };
        CHILD_THAT(::write(told.write_end.get(), "", 1), succeeds_with(1));
        while (map(512 << 20) == 0) {
        }
        CHILD_CHECK(map(512 << 20) == ENOMEM);
        CHILD_CHECK(map(1 << 20) == 0);
        const pid_t grandchild = ::fork();
        if (grandchild == 0) {
            ::_exit(map(512 << 20) == ENOMEM && map(1 << 20) == 0 ? 0 : 1);
        }
        int status = -1;
        CHILD_THAT(::waitpid(grandchild, &status, 0), succeeds_with(grandchild));
        ::_exit(status);
    }
    char byte;
    CHECK_THAT(::read(told.read_end.get(), &byte, 1), succeeds_with(1));
    const rlimit small{256 << 20, 256 << 20};
    CHECK_THAT(::prlimit(child, RLIMIT_AS, &small, nullptr), succeeds());
    int status = -1;
    CHECK_THAT(::waitpid(child, &status, 0), succeeds_with(child));
    CHECK(status == 0);
}

GUEST_HELPER(deep) {
    volatile char used[32 << 10];
    used[0] = 5;
    return used[0];
}

TEST_CASE("RLIMIT_STACK: the stack grows to it and not beyond") {
    CHECK(run_in_child([] {
              limit(RLIMIT_STACK, 1 << 20, 1 << 20);
              volatile char* top = static_cast<volatile char*>(__builtin_frame_address(0));
              for (long offset = 0; offset < 4 << 20; offset += 4096) {
                  top[-offset] = 1;
              }
          }) == killed(SIGSEGV));
}

TEST_CASE("RLIMIT_STACK: what is in use stays, whatever the limit") {
    in_child([] {
        volatile char used[256 << 10];
        for (size_t i = 0; i < sizeof used; i += 4096) {
            used[i] = static_cast<char>(i >> 12);
        }
        limit(RLIMIT_STACK, 64 << 10, RLIM_INFINITY);
        for (size_t i = 0; i < sizeof used; i += 4096) {
            CHILD_CHECK(used[i] == static_cast<char>(i >> 12));
        }
        // A program that is started with a low one works.
        limit(RLIMIT_STACK, 1 << 20, RLIM_INFINITY);
        Child child([] { exec_helper("deep", {}); });
        CHILD_CHECK(child.wait() == exited(5));
    });
}

TEST_CASE("RLIMIT_NPROC: stops a user's forks with EAGAIN, not root's") {
    in_child([] {
        limit(RLIMIT_NPROC, 3, 3);
        const pid_t as_root = ::fork();
        if (as_root == 0) {
            ::_exit(0);
        }
        CHILD_CHECK(as_root > 0);
        CHILD_THAT(::setuid(54321), succeeds());
        std::vector<pid_t> pids;
        for (int i = 0; i < 5; ++i) {
            const pid_t pid = ::fork();
            if (pid == 0) {
                ::pause();
                ::_exit(0);
            }
            if (pid < 0) {
                CHILD_CHECK(errno == EAGAIN);
                break;
            }
            pids.push_back(pid);
        }
        for (const pid_t pid : pids) {
            ::kill(pid, SIGKILL);
            ::waitpid(pid, nullptr, 0);
        }
        CHILD_CHECK(pids.size() == 2);
    });
}

TEST_CASE("RLIMIT_CPU: SIGXCPU at the soft limit") {
    CHECK(run_in_child([] {
              limit(RLIMIT_CPU, 1, 5);
              spin_forever();
          }) == killed(SIGXCPU));
}

TEST_CASE("RLIMIT_SIGPENDING: queued signals are limited with EAGAIN") {
    in_child([] {
        limit(RLIMIT_SIGPENDING, 4, 4);
        CHILD_THAT(::setuid(54322), succeeds());
        sigset_t set;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGRTMIN);
        ::sigprocmask(SIG_BLOCK, &set, nullptr);
        const sigval value{};
        int queued = 0;
        while (queued < 10 && ::sigqueue(::getpid(), SIGRTMIN, value) == 0) {
            ++queued;
        }
        CHILD_CHECK(queued <= 5 && errno == EAGAIN);
    });
}

TEST_CASE("rlimit: children inherit") {
    in_child([] {
        limit(RLIMIT_NOFILE, 123, 123);
        Child child([] {
            rlimit now;
            ::getrlimit(RLIMIT_NOFILE, &now);
            CHILD_CHECK(now.rlim_cur == 123);
        });
        CHILD_CHECK(child.wait() == exited(0));
    });
}

}  // namespace
