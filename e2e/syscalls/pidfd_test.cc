// pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2), waitid(2) with P_PIDFD, CLONE_PIDFD.

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

FileDescriptor pidfd_of(pid_t pid, unsigned flags = 0) {
    return FileDescriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid, flags)));
}
long send(const FileDescriptor& fd, int signal, siginfo_t* info = nullptr) {
    return ::syscall(SYS_pidfd_send_signal, fd.get(), signal, info, 0);
}

TEST_CASE("pidfd: readable once the process has ended, and then waited for by it") {
    Child child([] { ::pause(); });
    const FileDescriptor fd = pidfd_of(child.pid());
    REQUIRE(fd.valid());
    CHECK((::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
    pollfd entry{fd.get(), POLLIN, 0};
    CHECK_THAT(::poll(&entry, 1, 0), succeeds_with(0));
    siginfo_t info{};
    CHECK_THAT(::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(fd.get()), &info,
                        WEXITED | WNOHANG),
               succeeds());
    CHECK(info.si_pid == 0);
    CHECK_THAT(send(fd, SIGTERM), succeeds());
    CHECK_THAT(::poll(&entry, 1, kPatienceSeconds * 1000), succeeds_with(1));
    CHECK(entry.revents == POLLIN);
    CHECK_THAT(::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(fd.get()), &info,
                        WEXITED | WNOWAIT),
               succeeds());
    CHECK(info.si_pid == child.pid());
    CHECK(info.si_code == CLD_KILLED);
    CHECK(info.si_status == SIGTERM);
    CHECK(child.wait() == killed(SIGTERM));
    CHECK_THAT(send(fd, 0), fails_with(ESRCH));
    CHECK_THAT(
        ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(fd.get()), &info, WEXITED),
        fails_with(ECHILD));
}

TEST_CASE("pidfd: epoll and a blocking waitid hear of the end") {
    Gate end;
    Child child([&] { end.wait(); });
    const FileDescriptor fd = pidfd_of(child.pid());
    const FileDescriptor epoll(::epoll_create1(0));
    epoll_event event{EPOLLIN, {}};
    REQUIRE_THAT(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event), succeeds());
    end.open();
    CHECK_THAT(::epoll_wait(epoll.get(), &event, 1, kPatienceSeconds * 1000), succeeds_with(1));
    siginfo_t info{};
    CHECK_THAT(::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(fd.get()), &info,
                        WEXITED | WNOWAIT),
               succeeds());
    CHECK(info.si_code == CLD_EXITED);
    CHECK(child.wait() == exited(0));
}

TEST_CASE("pidfd: a waitid that may not block") {
    Child child([] { ::pause(); });
    const FileDescriptor fd = pidfd_of(child.pid(), O_NONBLOCK);
    REQUIRE(fd.valid());
    siginfo_t info{};
    CHECK_THAT(
        ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(fd.get()), &info, WEXITED),
        fails_with(EAGAIN));
}

volatile sig_atomic_t value_seen = 0;
void on_signal(int, siginfo_t* info, void*) { value_seen = info->si_value.sival_int; }

TEST_CASE("pidfd: signals with information, to oneself as one likes") {
    in_child([] {
        struct sigaction action {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO;
        ::sigaction(SIGUSR1, &action, nullptr);
        const FileDescriptor self = pidfd_of(::getpid());
        siginfo_t info{};
        info.si_signo = SIGUSR1;
        info.si_code = SI_QUEUE;
        info.si_value.sival_int = 42;
        CHILD_THAT(send(self, SIGUSR1, &info), succeeds());
        CHILD_CHECK(value_seen == 42);
        CHILD_THAT(send(self, SIGUSR2, &info), fails_with(EINVAL));
        const FileDescriptor parent = pidfd_of(::getppid());
        info.si_code = SI_USER;
        CHILD_THAT(send(parent, SIGUSR1, &info), fails_with(EPERM));
    });
}

TEST_CASE("pidfd: CLONE_PIDFD gives one with the child") {
    int fd = -1;
    const auto pid =
        static_cast<pid_t>(::syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, nullptr, &fd, nullptr, 0));
    if (pid == 0) {
        ::syscall(SYS_exit_group, 7);
    }
    REQUIRE(pid > 0);
    const FileDescriptor owned(fd);
    REQUIRE(owned.valid());
    siginfo_t info{};
    CHECK_THAT(::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(fd), &info, WEXITED),
               succeeds());
    CHECK(info.si_pid == pid);
    CHECK(info.si_status == 7);
    CHECK_THAT(
        ::syscall(SYS_clone, CLONE_PIDFD | CLONE_PARENT_SETTID | SIGCHLD, nullptr, &fd, nullptr, 0),
        fails_with(EINVAL));
}

TEST_CASE("pidfd: pidfd_getfd takes a copy of another's descriptor") {
    Pipe pipe;
    Gate ready;
    Child child([&] {
        ::dup2(pipe.write_end.get(), 77);
        ready.open();
        ::pause();
    });
    ready.wait();
    const FileDescriptor fd = pidfd_of(child.pid());
    const FileDescriptor copy(static_cast<int>(::syscall(SYS_pidfd_getfd, fd.get(), 77, 0)));
    SKIP_UNLESS(copy.valid() || errno != EPERM, "may not look into a child");
    REQUIRE(copy.valid());
    CHECK(write_all(copy.get(), "x"));
    CHECK(read_exactly(pipe.read_end.get(), 1) == "x");
    CHECK_THAT(::syscall(SYS_pidfd_getfd, fd.get(), 99, 0), fails_with(EBADF));
    CHECK_THAT(::syscall(SYS_pidfd_getfd, fd.get(), 77, 1), fails_with(EINVAL));
}

TEST_CASE("pidfd: wrong arguments fail") {
    CHECK_THAT(::syscall(SYS_pidfd_open, 0, 0), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_pidfd_open, ::getpid(), 1), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_pidfd_open, 0x7ffffff0, 0), fails_with(ESRCH));
    Pipe pipe;
    CHECK_THAT(send(pipe.read_end, SIGUSR1), fails_with(EBADF));
    const FileDescriptor self = pidfd_of(::getpid());
    CHECK_THAT(::syscall(SYS_pidfd_send_signal, self.get(), 0, nullptr, 9), fails_with(EINVAL));
    CHECK_THAT(send(self, 999), fails_with(EINVAL));
    char c;
    CHECK_THAT(::read(self.get(), &c, 1), fails_with(EINVAL));
    siginfo_t info{};
    CHECK_THAT(::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pipe.read_end.get()),
                        &info, WEXITED),
               fails_with(EBADF));
    Thread other([] { ::usleep(1); });
    CHECK_THAT(::syscall(SYS_pidfd_open, other.tid(), 0), fails_with_any({EINVAL, ENOENT, ESRCH}));
}

}  // namespace
