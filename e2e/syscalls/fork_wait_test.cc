// fork(2), vfork(2), clone(2), exit(2), wait4(2), waitid(2).

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

TEST_CASE("fork: the child has its own pid and this parent") {
    const pid_t parent = ::getpid();
    in_child([=] {
        CHILD_CHECK(::getpid() != parent);
        CHILD_CHECK(::getppid() == parent);
        CHILD_CHECK(::getpid() == gettid_now());
    });
}

TEST_CASE("fork: memory is copied, not shared") {
    Mapping page(page_size());
    page.data()[0] = 'p';
    int on_stack = 1;
    in_child([&] {
        CHILD_CHECK(page.data()[0] == 'p');
        page.data()[0] = 'c';
        on_stack = 2;
    });
    CHECK(page.data()[0] == 'p');
    CHECK(on_stack == 1);
}

TEST_CASE("fork: the parent's later writes are not seen by the child") {
    Mapping page(page_size());
    page.data()[0] = 'a';
    Gate changed;
    Child child([&] {
        changed.wait();
        CHILD_CHECK(page.data()[0] == 'a');
    });
    page.data()[0] = 'b';
    changed.open();
    CHECK(child.wait() == exited(0));
}

TEST_CASE("fork: shared anonymous memory is shared") {
    Mapping page(page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    in_child([&] { std::strcpy(page.data(), "from the child"); });
    CHECK(std::string(page.data()) == "from the child");
}

TEST_CASE("fork: a large heap survives many generations") {
    std::vector<int> numbers(1 << 20);
    for (size_t i = 0; i < numbers.size(); ++i) {
        numbers[i] = static_cast<int>(i * 7);
    }
    in_child([&] {
        numbers[12345] = -1;
        Child grandchild([&] {
            CHILD_CHECK(numbers[12345] == -1);
            CHILD_CHECK(numbers[54321] == 54321 * 7);
        });
        CHILD_CHECK(grandchild.wait() == exited(0));
    });
    CHECK(numbers[12345] == 12345 * 7);
}

TEST_CASE("fork: file offsets are shared, descriptor flags and tables are not") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "0123456789"), O_RDONLY);
    in_child([&] {
        char c;
        CHILD_THAT(::read(fd.get(), &c, 1), succeeds_with(1));
        CHILD_THAT(::fcntl(fd.get(), F_SETFD, 0), succeeds());
        CHILD_THAT(::close(fd.get()), succeeds());
    });
    CHECK_THAT(::lseek(fd.get(), 0, SEEK_CUR), succeeds_with(1));
    CHECK_THAT(::fcntl(fd.get(), F_GETFD), succeeds_with(FD_CLOEXEC));
}

TEST_CASE("fork: the working directory is copied") {
    TempDir dir;
    char before[4096], after[4096];
    REQUIRE(::getcwd(before, sizeof before) != nullptr);
    in_child([&] { CHILD_THAT(::chdir(dir.path().c_str()), succeeds()); });
    REQUIRE(::getcwd(after, sizeof after) != nullptr);
    CHECK(std::string(before) == after);
}

TEST_CASE("fork: pending signals and alarms are not inherited, masks and handlers are") {
    in_child([] {
        sigset_t set;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGUSR1);
        ::sigaddset(&set, SIGALRM);
        CHILD_THAT(::sigprocmask(SIG_BLOCK, &set, nullptr), succeeds());
        ::signal(SIGUSR2, SIG_IGN);
        ::raise(SIGUSR1);
        ::alarm(1000);
        Child grandchild([] {
            sigset_t pending, mask;
            CHILD_THAT(::sigpending(&pending), succeeds());
            CHILD_CHECK(!::sigismember(&pending, SIGUSR1));
            CHILD_THAT(::sigprocmask(SIG_BLOCK, nullptr, &mask), succeeds());
            CHILD_CHECK(::sigismember(&mask, SIGUSR1));
            CHILD_CHECK(::signal(SIGUSR2, SIG_DFL) == SIG_IGN);
            CHILD_CHECK(::alarm(0) == 0);
        });
        CHILD_CHECK(grandchild.wait() == exited(0));
        CHILD_CHECK(::alarm(0) > 0);
    });
}

TEST_CASE("fork: only the calling thread lives on in the child") {
    Gate leave;
    Thread other([&] { leave.wait(); });
    other.tid();
    in_child([] {
        const std::string status = read_file("/proc/self/status");
        CHILD_CHECK(status.find("\nThreads:\t1\n") != std::string::npos);
    });
    leave.open();
}

TEST_CASE("fork: floating point state is copied") {
    volatile double x = 1.5;
    double product = 0;
    in_child([&] {
        double local = x;
        for (int i = 0; i < 10; ++i) {
            local *= 2;
        }
        CHILD_CHECK(local == 1536.0);
    });
    product = x * 4;
    CHECK(product == 6.0);
}

TEST_CASE("fork: children that live on side by side have the caller's registers and can do all") {
    static volatile sig_atomic_t signals;
    ::signal(SIGUSR1, [](int) { signals = signals + 1; });
    Gate end;
    for (int i = 0; i < 8; ++i) {
        // Across the call itself: a register that the compiler believes kept, and one of the FPU.
        const double wanted = i * 1.25;
        double kept = 0;
        long pid = SYS_fork;
        asm volatile("movsd %2, %%xmm13\n\tsyscall\n\tmovsd %%xmm13, %1"
                     : "+a"(pid), "=m"(kept)
                     : "m"(wanted)
                     : "rcx", "r11", "memory", "xmm13");
        if (pid == 0) {
            bool good = kept == wanted;
            ::kill(::getpid(), SIGUSR1);
            good = good && signals == 1;
            good = good && run_in_child([i] { ::_exit(i); }) == exited(i);
            Thread thread([&] { good = good && ::getppid() > 0; });
            thread.join();
            end.wait();
            ::_exit(good ? i : 99);
        }
        REQUIRE(pid > 0);
        CHECK(kept == wanted);
    }
    for (int i = 0; i < 8; ++i) {
        end.open();
    }
    int sum = 0;
    for (int i = 0; i < 8; ++i) {
        int status = 0;
        REQUIRE(::wait(&status) > 0);
        sum += WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
    }
    CHECK(sum == 28);
    ::signal(SIGUSR1, SIG_DFL);
}

TEST_CASE("fork: a thread other than the main one can fork") {
    WaitStatus status(-1);
    Thread forker([&] { status = run_in_child([] { ::_exit(9); }); });
    forker.join();
    CHECK(status == exited(9));
}

TEST_CASE("fork: two hundred children in a row") {
    int good = 0;
    for (int i = 0; i < 200; ++i) {
        good += run_in_child([&] { ::_exit(i & 0x7f); }) == exited(i & 0x7f);
    }
    CHECK(good == 200);
}

TEST_CASE("fork: thirty children at once, reaped in the order of their pids") {
    std::vector<std::unique_ptr<Child>> children;
    Gate end;
    for (int i = 0; i < 30; ++i) {
        children.push_back(std::make_unique<Child>([&, i] {
            end.wait();
            ::_exit(i);
        }));
    }
    for (int i = 0; i < 30; ++i) {
        end.open();
    }
    int good = 0;
    for (int i = 0; i < 30; ++i) {
        good += children[i]->wait() == exited(i);
    }
    CHECK(good == 30);
}

TEST_CASE("fork: four threads fork at the same time") {
    std::atomic<int> good{0};
    {
        std::vector<std::unique_ptr<Thread>> threads;
        for (int t = 0; t < 4; ++t) {
            threads.push_back(std::make_unique<Thread>([&good] {
                for (int i = 0; i < 25; ++i) {
                    good += run_in_child([i] { ::_exit(i); }) == exited(i);
                }
            }));
        }
    }
    CHECK(good == 100);
}

TEST_CASE("vfork: the parent waits until the child is gone") {
    volatile int shared = 0;
    const pid_t pid = ::vfork();
    if (pid == 0) {
        shared = 42;  // the child runs in the parent's memory
        ::_exit(3);
    }
    REQUIRE(pid > 0);
    CHECK(shared == 42);
    int status = 0;
    CHECK_THAT(::waitpid(pid, &status, 0), succeeds_with(pid));
    CHECK(WaitStatus(status) == exited(3));
}

GUEST_HELPER(exit_with) { return argc > 0 ? std::atoi(argv[0]) : 99; }

TEST_CASE("vfork: the parent goes on when the child has executed a program") {
    const std::vector<std::string> strings = helper_argv("exit_with", {"17"});
    std::vector<char*> argv;
    for (const std::string& s : strings) {
        argv.push_back(const_cast<char*>(s.c_str()));
    }
    argv.push_back(nullptr);
    const pid_t pid = ::vfork();
    if (pid == 0) {
        ::execv(argv[0], argv.data());
        ::_exit(127);
    }
    REQUIRE(pid > 0);
    int status = 0;
    CHECK_THAT(::waitpid(pid, &status, 0), succeeds_with(pid));
    CHECK(WaitStatus(status) == exited(17));
}

int clone_child(void* argument) {
    *static_cast<volatile int*>(argument) = 5;  // seen by the parent only with CLONE_VM
    return 6;
}

TEST_CASE("clone: CLONE_VM shares the memory, the return value is the exit status") {
    Mapping stack(64 * 1024);
    volatile int shared = 0;
    const pid_t pid = ::clone(clone_child, stack.data() + stack.size(), CLONE_VM | SIGCHLD,
                              const_cast<int*>(&shared));
    REQUIRE(pid > 0);
    int status = 0;
    CHECK_THAT(::waitpid(pid, &status, 0), succeeds_with(pid));
    CHECK(WaitStatus(status) == exited(6));
    CHECK(shared == 5);
}

int close_the_file(void* argument) { return ::close(*static_cast<int*>(argument)) == 0 ? 0 : 1; }

TEST_CASE("clone: CLONE_FILES shares the descriptor table") {
    Mapping stack(64 * 1024);
    int fd = ::dup(1);
    const pid_t pid =
        ::clone(close_the_file, stack.data() + stack.size(), CLONE_FILES | SIGCHLD, &fd);
    REQUIRE(pid > 0);
    int status = 0;
    CHECK_THAT(::waitpid(pid, &status, 0), succeeds_with(pid));
    CHECK(WaitStatus(status) == exited(0));
    CHECK_THAT(::fcntl(fd, F_GETFD), fails_with(EBADF));
}

TEST_CASE("clone: CLONE_PARENT_SETTID and CLONE_CHILD_CLEARTID write the tid word") {
    Mapping word(page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    int parent_tid = 0;
    *word.as<int>() = 77;
    const long pid = ::syscall(SYS_clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD,
                               nullptr, &parent_tid, word.as<int>(), 0);
    if (pid == 0) {
        ::_exit(*word.as<int>() == ::getpid() ? 0 : 1);
    }
    REQUIRE(pid > 0);
    CHECK(parent_tid == pid);
    int status = 0;
    CHECK_THAT(::waitpid(static_cast<pid_t>(pid), &status, 0), succeeds_with(pid));
    CHECK(WaitStatus(status) == exited(0));
}

TEST_CASE("clone: impossible flag combinations fail with EINVAL") {
    const auto clone_raw = [](unsigned long flags) {
        return ::syscall(SYS_clone, flags, nullptr, nullptr, nullptr, 0);
    };
    CHECK_THAT(clone_raw(CLONE_SIGHAND | SIGCHLD), fails_with(EINVAL));
    CHECK_THAT(clone_raw(CLONE_THREAD | SIGCHLD), fails_with(EINVAL));
    CHECK_THAT(clone_raw(CLONE_THREAD | CLONE_VM | SIGCHLD), fails_with(EINVAL));
    CHECK_THAT(clone_raw(CLONE_FS | CLONE_NEWNS | SIGCHLD), fails_with(EINVAL));
}

TEST_CASE("clone: a child without SIGCHLD is only found with __WALL or __WCLONE") {
    in_child([] {
        Mapping stack(64 * 1024);
        int value = 0;
        const pid_t pid = ::clone(clone_child, stack.data() + stack.size(), CLONE_VM, &value);
        CHILD_CHECK(pid > 0);
        int status = 0;
        CHILD_THAT(::waitpid(pid, &status, 0), fails_with(ECHILD));
        CHILD_THAT(::waitpid(pid, &status, __WALL), succeeds_with(pid));
        CHILD_CHECK(WaitStatus(status) == exited(6));
    });
}

TEST_CASE("exit: only the low byte of the status is kept") {
    CHECK(run_in_child([] { ::_exit(0x1ff); }) == exited(0xff));
    CHECK(run_in_child([] { ::_exit(256); }) == exited(0));
}

TEST_CASE("exit: the main thread may end before the others") {
    const WaitStatus status = run_in_child([] {
        Thread other([] {
            if (eventually([] { return thread_state(::getpid(), ::getpid()) == 'Z'; })) {
                ::_exit(21);
            }
            ::_exit(22);
        });
        other.tid();
        ::syscall(SYS_exit, 0);
    });
    CHECK(status == exited(21));
}

TEST_CASE("exit_group: ends threads that block") {
    const WaitStatus status = run_in_child([] {
        Pipe pipe;
        char c;
        Thread blocked([&] { (void)::read(pipe.read_end.get(), &c, 1); });
        wait_until_blocked(::getpid(), blocked.tid());
        ::_exit(4);
    });
    CHECK(status == exited(4));
}

TEST_CASE("exit_group: ends threads that compute") {
    const WaitStatus status = run_in_child([] {
        Thread spinning([] { spin_forever(); });
        spinning.tid();
        ::_exit(5);
    });
    CHECK(status == exited(5));
}

TEST_CASE("wait4: without children it fails with ECHILD") {
    in_child([] {
        int status;
        CHILD_THAT(::wait(&status), fails_with(ECHILD));
        CHILD_THAT(::waitpid(1, &status, WNOHANG), fails_with(ECHILD));
        CHILD_THAT(::waitpid(::getpid(), &status, 0), fails_with(ECHILD));
    });
}

TEST_CASE("wait4: WNOHANG returns zero while the child runs") {
    Gate leave;
    Child child([&] { leave.wait(); });
    int status = 77;
    CHECK_THAT(::waitpid(child.pid(), &status, WNOHANG), succeeds_with(0));
    CHECK(status == 77);
    leave.open();
    CHECK(child.wait() == exited(0));
}

TEST_CASE("wait4: unknown options fail with EINVAL") {
    CHECK_THAT(::waitpid(-1, nullptr, 0x100), fails_with(EINVAL));
    siginfo_t info;
    CHECK_THAT(::waitid(P_ALL, 0, &info, 0), fails_with(EINVAL));
    CHECK_THAT(::waitid(P_ALL, 0, &info, WNOHANG), fails_with(EINVAL));
    CHECK_THAT(::waitid(static_cast<idtype_t>(99), 0, &info, WEXITED), fails_with(EINVAL));
}

TEST_CASE("wait4: fills the rusage and only the rusage") {
    const pid_t pid = ::fork();
    if (pid == 0) {
        ::_exit(0);
    }
    Fenced<rusage> usage;
    int status = 0;
    CHECK_THAT(::wait4(pid, &status, 0, usage.get()), succeeds_with(pid));
    CHECK(usage.intact());
    CHECK(usage->ru_utime.tv_sec < 1000);
    CHECK(usage->ru_maxrss >= 0);
}

TEST_CASE("wait4: a bad status pointer fails with EFAULT after the child was reaped") {
    const pid_t pid = ::fork();
    if (pid == 0) {
        ::_exit(0);
    }
    CHECK_THAT(::syscall(SYS_wait4, pid, bad<int>(), 0, nullptr), fails_with(EFAULT));
    CHECK_THAT(::waitpid(pid, nullptr, 0), fails_with(ECHILD));
}

TEST_CASE("waitid: WNOWAIT leaves the zombie, the second call takes it") {
    Child child([] { ::_exit(7); });
    siginfo_t info{};
    REQUIRE_THAT(::waitid(P_PID, child.pid(), &info, WEXITED | WNOWAIT), succeeds_with(0));
    CHECK(info.si_pid == child.pid());
    CHECK(info.si_code == CLD_EXITED);
    CHECK(info.si_status == 7);
    CHECK(info.si_signo == SIGCHLD);
    CHECK(info.si_uid == ::getuid());
    CHECK_THAT(::kill(child.pid(), 0), succeeds());  // a zombie still has its pid
    CHECK(child.wait() == exited(7));
    CHECK_THAT(::kill(child.pid(), 0), fails_with(ESRCH));
}

TEST_CASE("waitid: a killed child says CLD_KILLED and the signal") {
    Child child([] { ::pause(); });
    child.kill(SIGTERM);
    siginfo_t info{};
    REQUIRE_THAT(::waitid(P_PID, child.pid(), &info, WEXITED | WNOWAIT), succeeds_with(0));
    CHECK(info.si_code == CLD_KILLED);
    CHECK(info.si_status == SIGTERM);
    CHECK(child.wait() == killed(SIGTERM));
}

TEST_CASE("wait4: by process group takes only that group's children") {
    in_child([] {
        Child mine([] { ::_exit(1); });
        Gate moved;
        Child other([&] {
            ::setpgid(0, 0);
            moved.open();
            ::_exit(2);
        });
        moved.wait();
        int status;
        CHILD_THAT(::waitpid(-other.pid(), &status, 0), succeeds_with(other.pid()));
        CHILD_CHECK(WaitStatus(status) == exited(2));
        CHILD_THAT(::waitpid(-other.pid(), &status, 0), fails_with(ECHILD));
        CHILD_THAT(::waitpid(0, &status, 0), succeeds_with(mine.pid()));
    });
}

TEST_CASE("wait4: SIGCHLD ignored reaps by itself, wait then blocks for the last and fails") {
    in_child([] {
        ::signal(SIGCHLD, SIG_IGN);
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::_exit(0);
        }
        CHILD_THAT(::waitpid(pid, nullptr, 0), fails_with(ECHILD));
        CHILD_THAT(::kill(pid, 0), fails_with(ESRCH));
    });
}

TEST_CASE("wait4: a signal interrupts a blocked wait") {
    in_child([] {
        struct sigaction action {};
        action.sa_handler = [](int) {};
        CHILD_THAT(::sigaction(SIGUSR1, &action, nullptr), succeeds());
        Child sleeper([] { ::pause(); });
        const pid_t self = ::getpid();
        Child killer([=] {
            wait_until_blocked(self);
            ::kill(self, SIGUSR1);
        });
        CHILD_THAT(::waitpid(sleeper.pid(), nullptr, 0), fails_with(EINTR));
        CHILD_CHECK(killer.wait() == exited(0));
    });
}

TEST_CASE("wait4: one thread reaps what another thread forked, unless __WNOTHREAD") {
    Child child([] { ::_exit(8); });
    WaitStatus status(-1);
    int refused = 0;
    Thread reaper([&] {
        refused = ::waitpid(child.pid(), nullptr, __WNOTHREAD) == -1 ? errno : 0;
        status = child.wait();
    });
    reaper.join();
    CHECK(refused == ECHILD);
    CHECK(status == exited(8));
}

TEST_CASE("orphans: a child of a dead parent is adopted") {
    Pipe report;
    Child middle([&] {
        const pid_t me = ::getpid();
        const pid_t orphan = ::fork();
        if (orphan == 0) {
            const bool adopted = eventually([=] { return ::getppid() != me; });
            write_all(report.write_end.get(), adopted ? "adopted" : "still mine");
            ::_exit(0);
        }
        ::_exit(0);
    });
    CHECK(middle.wait() == exited(0));
    report.write_end.reset();
    CHECK(read_all(report.read_end.get()) == "adopted");
}

TEST_CASE("getpid: gettid of the main thread is the pid, others differ") {
    in_child([] { CHILD_CHECK(gettid_now() == ::getpid()); });
    pid_t tid = 0, pid = 0;
    Thread thread([&] {
        tid = gettid_now();
        pid = ::getpid();
    });
    thread.join();
    CHECK(pid == ::getpid());
    CHECK(tid != pid);
}

}  // namespace
