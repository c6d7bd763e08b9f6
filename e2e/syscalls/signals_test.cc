// sigaction(2), kill(2), sigprocmask(2), sigsuspend(2), sigtimedwait(2), signalfd(2), restarts.

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

volatile sig_atomic_t calls = 0;
volatile sig_atomic_t last_signal = 0;
siginfo_t last_info;

void count(int signal) {
    calls = calls + 1;
    last_signal = signal;
}

void count_info(int signal, siginfo_t* info, void*) {
    calls = calls + 1;
    last_signal = signal;
    last_info = *info;
}

void handle(int signal, int flags = 0) {
    struct sigaction action {};
    action.sa_flags = flags;
    if (flags & SA_SIGINFO) {
        action.sa_sigaction = count_info;
    } else {
        action.sa_handler = count;
    }
    CHILD_THAT(::sigaction(signal, &action, nullptr), succeeds());
}

sigset_t set_of(std::initializer_list<int> signals) {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : signals) {
        ::sigaddset(&set, signal);
    }
    return set;
}

void block(std::initializer_list<int> signals) {
    const sigset_t set = set_of(signals);
    CHILD_THAT(::sigprocmask(SIG_BLOCK, &set, nullptr), succeeds());
}

/// Sends a signal to this thread as soon as it sleeps in the kernel.
Thread when_blocked(int signal) {
    const pid_t pid = ::getpid(), tid = gettid_now();
    return Thread([=] {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
        wait_until_blocked(pid, tid);
        ::syscall(SYS_tgkill, pid, tid, signal);
    });
}

TEST_CASE("signal: a handler runs before kill of oneself returns") {
    in_child([] {
        handle(SIGUSR1);
        CHILD_THAT(::kill(::getpid(), SIGUSR1), succeeds());
        CHILD_CHECK(calls == 1);
        CHILD_CHECK(last_signal == SIGUSR1);
    });
}

TEST_CASE("signal: siginfo of kill, tgkill and sigqueue") {
    in_child([] {
        handle(SIGUSR1, SA_SIGINFO);
        ::kill(::getpid(), SIGUSR1);
        CHILD_CHECK(last_info.si_code == SI_USER);
        CHILD_CHECK(last_info.si_pid == ::getpid());
        CHILD_CHECK(last_info.si_uid == ::getuid());
        ::raise(SIGUSR1);
        CHILD_CHECK(last_info.si_code == SI_TKILL);
        sigval value;
        value.sival_ptr = &value;
        CHILD_THAT(::sigqueue(::getpid(), SIGUSR1, value), succeeds());
        CHILD_CHECK(last_info.si_code == SI_QUEUE);
        CHILD_CHECK(last_info.si_value.sival_ptr == &value);
        CHILD_CHECK(last_info.si_pid == ::getpid());
    });
}

TEST_CASE("signal: the default actions terminate, ignore or stop") {
    for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGALRM, SIGPIPE, SIGKILL, SIGIO,
                             SIGPROF, SIGSYS, SIGRTMIN, SIGRTMAX}) {
        CAPTURE(signal);
        CHECK(run_in_child([=] {
                  ::kill(::getpid(), signal);
                  ::_exit(1);
              }) == killed(signal));
    }
    for (const int signal : {SIGCHLD, SIGCONT, SIGURG, SIGWINCH}) {
        CAPTURE(signal);
        CHECK(run_in_child([=] {
                  ::kill(::getpid(), signal);
                  ::_exit(1);
              }) == exited(1));
    }
}

TEST_CASE("signal: an ignored signal is dropped, even while blocked it does not stay") {
    in_child([] {
        ::signal(SIGUSR1, SIG_IGN);
        ::kill(::getpid(), SIGUSR1);
        block({SIGUSR2});
        ::kill(::getpid(), SIGUSR2);
        ::signal(SIGUSR2, SIG_IGN);  // discards what is pending
        ::signal(SIGUSR2, SIG_DFL);
        const sigset_t set = set_of({SIGUSR2});
        CHILD_THAT(::sigprocmask(SIG_UNBLOCK, &set, nullptr), succeeds());
    });
}

TEST_CASE("signal: SIGKILL and SIGSTOP cannot be caught, ignored or blocked") {
    struct sigaction action {};
    action.sa_handler = SIG_IGN;
    CHECK_THAT(::sigaction(SIGKILL, &action, nullptr), fails_with(EINVAL));
    CHECK_THAT(::sigaction(SIGSTOP, &action, nullptr), fails_with(EINVAL));
    CHECK(run_in_child([] {
              sigset_t all;
              ::sigfillset(&all);
              ::sigprocmask(SIG_SETMASK, &all, nullptr);
              sigset_t now;
              ::sigprocmask(SIG_SETMASK, nullptr, &now);
              CHILD_CHECK(!::sigismember(&now, SIGKILL));
              CHILD_CHECK(!::sigismember(&now, SIGSTOP));
              ::kill(::getpid(), SIGKILL);
          }) == killed(SIGKILL));
}

TEST_CASE("signal: a blocked signal waits until it is unblocked, once") {
    in_child([] {
        handle(SIGUSR1);
        block({SIGUSR1});
        ::kill(::getpid(), SIGUSR1);
        ::kill(::getpid(), SIGUSR1);
        CHILD_CHECK(calls == 0);
        sigset_t pending;
        CHILD_THAT(::sigpending(&pending), succeeds());
        CHILD_CHECK(::sigismember(&pending, SIGUSR1));
        const sigset_t set = set_of({SIGUSR1});
        CHILD_THAT(::sigprocmask(SIG_UNBLOCK, &set, nullptr), succeeds());
        CHILD_CHECK(calls == 1);
    });
}

TEST_CASE("signal: real-time signals queue, in order of number and then of sending") {
    in_child([] {
        static std::vector<int> seen;
        struct sigaction action {};
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = [](int signal, siginfo_t* info, void*) {
            seen.push_back(signal * 100 + info->si_value.sival_int);
        };
        const int first = SIGRTMIN, second = SIGRTMIN + 1;
        // The handlers block each other, so that delivery shows the queue's order.
        action.sa_mask = set_of({first, second});
        ::sigaction(first, &action, nullptr);
        ::sigaction(second, &action, nullptr);
        block({first, second});
        for (const int signal : {second, first}) {
            for (int i = 0; i < 3; ++i) {
                sigval value;
                value.sival_int = i;
                CHILD_THAT(::sigqueue(::getpid(), signal, value), succeeds());
            }
        }
        const sigset_t set = set_of({first, second});
        ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
        const std::vector<int> expected{first * 100,  first * 100 + 1,  first * 100 + 2,
                                        second * 100, second * 100 + 1, second * 100 + 2};
        CHILD_CHECK(seen == expected);
    });
}

TEST_CASE("signal: the signal is blocked while its handler runs, unless SA_NODEFER") {
    in_child([] {
        static int depth, deepest;
        struct sigaction action {};
        action.sa_handler = [](int signal) {
            ++depth;
            deepest = std::max(deepest, depth);
            if (calls < 3) {
                calls = calls + 1;
                ::raise(signal);
            }
            --depth;
        };
        ::sigaction(SIGUSR1, &action, nullptr);
        ::raise(SIGUSR1);
        CHILD_CHECK(calls == 3);
        CHILD_CHECK(deepest == 1);
        calls = 0;
        action.sa_flags = SA_NODEFER;
        ::sigaction(SIGUSR1, &action, nullptr);
        ::raise(SIGUSR1);
        CHILD_CHECK(deepest == 4);
    });
}

TEST_CASE("signal: sa_mask is blocked during the handler and restored behind it") {
    in_child([] {
        struct sigaction action {};
        action.sa_mask = set_of({SIGUSR2});
        action.sa_handler = [](int) {
            sigset_t now;
            ::sigprocmask(SIG_BLOCK, nullptr, &now);
            calls = ::sigismember(&now, SIGUSR2) && ::sigismember(&now, SIGUSR1) ? 1 : 2;
        };
        ::sigaction(SIGUSR1, &action, nullptr);
        ::raise(SIGUSR1);
        CHILD_CHECK(calls == 1);
        sigset_t now;
        ::sigprocmask(SIG_BLOCK, nullptr, &now);
        CHILD_CHECK(!::sigismember(&now, SIGUSR2));
    });
}

TEST_CASE("signal: SA_RESETHAND works once") {
    CHECK(run_in_child([] {
              handle(SIGUSR1, SA_RESETHAND);
              ::raise(SIGUSR1);
              CHILD_CHECK(calls == 1);
              ::raise(SIGUSR1);
          }) == killed(SIGUSR1));
}

TEST_CASE("sigaction: returns the old action as it was set") {
    in_child([] {
        struct sigaction action {};
        action.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER;
        action.sa_sigaction = count_info;
        action.sa_mask = set_of({SIGHUP, SIGRTMAX});
        CHILD_THAT(::sigaction(SIGUSR1, &action, nullptr), succeeds());
        Fenced<struct sigaction> old;
        CHILD_THAT(::sigaction(SIGUSR1, nullptr, old.get()), succeeds());
        CHILD_CHECK(old->sa_sigaction == count_info);
        CHILD_CHECK((old->sa_flags & (SA_SIGINFO | SA_RESTART | SA_NODEFER)) == action.sa_flags);
        CHILD_CHECK(::sigismember(&old->sa_mask, SIGHUP) == 1);
        CHILD_CHECK(::sigismember(&old->sa_mask, SIGRTMAX) == 1);
        CHILD_CHECK(::sigismember(&old->sa_mask, SIGINT) == 0);
        CHILD_CHECK(old.intact());
    });
}

TEST_CASE("signal calls: wrong numbers, sizes and pointers fail") {
    CHECK_THAT(::kill(::getpid(), 65), fails_with(EINVAL));
    CHECK_THAT(::kill(::getpid(), -1), fails_with(EINVAL));
    CHECK_THAT(::kill(0x7ffffff0, 0), fails_with(ESRCH));
    CHECK_THAT(::kill(::getpid(), 0), succeeds());
    char action[64] = {};
    CHECK_THAT(::syscall(SYS_rt_sigaction, SIGUSR1, nullptr, action, 4), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_rt_sigaction, 0, nullptr, action, 8), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_rt_sigaction, 65, nullptr, action, 8), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_rt_sigaction, SIGUSR1, bad<char>(), nullptr, 8), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_rt_sigaction, SIGUSR1, nullptr, bad<char>(), 8), fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_rt_sigprocmask, 99, action, nullptr, 8), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_rt_sigprocmask, SIG_BLOCK, action, nullptr, 16), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_rt_sigprocmask, SIG_BLOCK, bad<char>(), nullptr, 8),
               fails_with(EFAULT));
    CHECK_THAT(::syscall(SYS_tgkill, ::getpid(), -1, 0), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_tgkill, ::getpid(), 0x7ffffff0, 0), fails_with(ESRCH));
    CHECK_THAT(::syscall(SYS_tkill, 0x7ffffff0, 0), fails_with(ESRCH));
}

TEST_CASE("tgkill: a thread of another process is not found under this pid") {
    Child child([] { ::pause(); });
    CHECK_THAT(::syscall(SYS_tgkill, ::getpid(), child.pid(), 0), fails_with(ESRCH));
    CHECK_THAT(::syscall(SYS_tgkill, child.pid(), child.pid(), 0), succeeds());
}

TEST_CASE("restart: a read is interrupted with EINTR without SA_RESTART") {
    in_child([] {
        handle(SIGUSR1);
        Pipe pipe;
        char c;
        Thread killer = when_blocked(SIGUSR1);
        CHILD_THAT(::read(pipe.read_end.get(), &c, 1), fails_with(EINTR));
        CHILD_CHECK(calls == 1);
    });
}

TEST_CASE("restart: a read goes on after the handler with SA_RESTART") {
    in_child([] {
        handle(SIGUSR1, SA_RESTART);
        Pipe pipe;
        const pid_t pid = ::getpid();
        Thread killer([&, pid] {
            sigset_t all;
            ::sigfillset(&all);
            ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
            for (int i = 1; i <= 3; ++i) {
                wait_until_blocked(pid, pid);
                ::kill(pid, SIGUSR1);
                CHILD_CHECK(eventually([=] { return calls == i; }));
            }
            wait_until_blocked(pid, pid);
            write_all(pipe.write_end.get(), "r");
        });
        char c = 0;
        CHILD_THAT(::read(pipe.read_end.get(), &c, 1), succeeds_with(1));
        CHILD_CHECK(c == 'r');
        CHILD_CHECK(calls == 3);
    });
}

TEST_CASE("restart: an ignored or stopped-and-continued reader is not interrupted") {
    Pipe pipe;
    Child reader([&] {
        char c;
        CHILD_THAT(::read(pipe.read_end.get(), &c, 1), succeeds_with(1));
    });
    wait_until_blocked(reader.pid());
    reader.kill(SIGWINCH);
    reader.kill(SIGSTOP);
    CHECK(reader.wait(WUNTRACED) == stopped(SIGSTOP));
    reader.kill(SIGCONT);
    CHECK(reader.wait(WCONTINUED) == continued());
    wait_until_blocked(reader.pid());
    REQUIRE(write_all(pipe.write_end.get(), "x"));
    CHECK(reader.wait() == exited(0));
}

TEST_CASE("restart: poll, sigsuspend and nanosleep fail with EINTR even with SA_RESTART") {
    in_child([] {
        handle(SIGUSR1, SA_RESTART);
        {
            Thread killer = when_blocked(SIGUSR1);
            CHILD_THAT(::poll(nullptr, 0, -1), fails_with(EINTR));
        }
        {
            Thread killer = when_blocked(SIGUSR1);
            const timespec hour{3600, 0};
            timespec rest{};
            CHILD_THAT(::nanosleep(&hour, &rest), fails_with(EINTR));
            CHILD_CHECK(rest.tv_sec > 3000);
            CHILD_CHECK(rest.tv_sec <= 3600);
        }
        {
            Thread killer = when_blocked(SIGUSR1);
            CHILD_THAT(::pause(), fails_with(EINTR));
        }
        CHILD_CHECK(calls == 3);
    });
}

TEST_CASE("sigsuspend: waits with another mask and restores the old one") {
    in_child([] {
        handle(SIGUSR1);
        handle(SIGUSR2);
        block({SIGUSR1, SIGUSR2});
        ::kill(::getpid(), SIGUSR1);
        const sigset_t only_two_blocked = set_of({SIGUSR2});
        CHILD_THAT(::sigsuspend(&only_two_blocked), fails_with(EINTR));
        CHILD_CHECK(calls == 1);
        CHILD_CHECK(last_signal == SIGUSR1);
        sigset_t now;
        ::sigprocmask(SIG_BLOCK, nullptr, &now);
        CHILD_CHECK(::sigismember(&now, SIGUSR1));
        CHILD_CHECK(::sigismember(&now, SIGUSR2));
    });
}

TEST_CASE("sigtimedwait: takes a pending signal without running its handler") {
    in_child([] {
        handle(SIGUSR1);
        block({SIGUSR1});
        sigval value;
        value.sival_int = 1234;
        ::sigqueue(::getpid(), SIGUSR1, value);
        const sigset_t set = set_of({SIGUSR1});
        Fenced<siginfo_t> info;
        CHILD_THAT(::sigwaitinfo(&set, info.get()), succeeds_with(SIGUSR1));
        CHILD_CHECK(info->si_value.sival_int == 1234);
        CHILD_CHECK(info.intact());
        CHILD_CHECK(calls == 0);
        const timespec none{0, 0};
        CHILD_THAT(::sigtimedwait(&set, nullptr, &none), fails_with(EAGAIN));
        const timespec wrong{0, 2'000'000'000};
        CHILD_THAT(::sigtimedwait(&set, nullptr, &wrong), fails_with(EINVAL));
    });
}

TEST_CASE("sigtimedwait: a sleeping waiter is woken by the signal") {
    in_child([] {
        block({SIGUSR1, SIGUSR2});
        Thread killer = when_blocked(SIGUSR2);
        const sigset_t set = set_of({SIGUSR1, SIGUSR2});
        CHILD_THAT(::sigwaitinfo(&set, nullptr), succeeds_with(SIGUSR2));
    });
}

TEST_CASE("sigtimedwait: a signal outside the set interrupts it") {
    in_child([] {
        handle(SIGUSR2);
        block({SIGUSR1});
        Thread killer = when_blocked(SIGUSR2);
        const sigset_t set = set_of({SIGUSR1});
        CHILD_THAT(::syscall(SYS_rt_sigtimedwait, &set, nullptr, nullptr, 8), fails_with(EINTR));
        CHILD_CHECK(calls == 1);
    });
}

TEST_CASE("signalfd: reads what is pending, polls and refuses short buffers") {
    in_child([] {
        block({SIGUSR1, SIGCHLD});
        const sigset_t set = set_of({SIGUSR1, SIGCHLD});
        const FileDescriptor fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
        CHILD_CHECK(fd.valid());
        FencedBuffer buffer(sizeof(signalfd_siginfo));
        CHILD_THAT(::read(fd.get(), buffer.data(), buffer.size()), fails_with(EAGAIN));
        ::kill(::getpid(), SIGUSR1);
        pollfd entry{fd.get(), POLLIN, 0};
        CHILD_THAT(::poll(&entry, 1, 0), succeeds_with(1));
        CHILD_THAT(::read(fd.get(), buffer.data(), 4), fails_with(EINVAL));
        CHILD_THAT(::read(fd.get(), buffer.data(), buffer.size()), succeeds_with(128));
        const auto* info = reinterpret_cast<const signalfd_siginfo*>(buffer.data());
        CHILD_CHECK(info->ssi_signo == SIGUSR1);
        CHILD_CHECK(info->ssi_pid == static_cast<unsigned>(::getpid()));
        Child child([] { ::_exit(3); });
        entry.revents = 0;
        CHILD_THAT(::poll(&entry, 1, kPatienceSeconds * 1000), succeeds_with(1));
        CHILD_THAT(::read(fd.get(), buffer.data(), buffer.size()), succeeds_with(128));
        CHILD_CHECK(info->ssi_signo == SIGCHLD);
        CHILD_CHECK(info->ssi_status == 3);
        CHILD_CHECK(child.wait() == exited(3));
    });
}

TEST_CASE("SIGCHLD: comes with the child's pid, code and status") {
    in_child([] {
        handle(SIGCHLD, SA_SIGINFO);
        Child child([] { ::_exit(5); });
        const pid_t pid = child.pid();
        CHILD_CHECK(child.wait() == exited(5));
        CHILD_CHECK(eventually([] { return calls >= 1; }));
        CHILD_CHECK(last_info.si_pid == pid);
        CHILD_CHECK(last_info.si_code == CLD_EXITED);
        CHILD_CHECK(last_info.si_status == 5);
    });
}

TEST_CASE("SIGCHLD: SA_NOCLDSTOP keeps stops quiet, SA_NOCLDWAIT leaves no zombie") {
    in_child([] {
        handle(SIGCHLD, SA_NOCLDSTOP);
        Child child([] { ::pause(); });
        child.kill(SIGSTOP);
        CHILD_CHECK(child.wait(WUNTRACED) == stopped(SIGSTOP));
        CHILD_CHECK(calls == 0);
        child.kill(SIGKILL);
        CHILD_CHECK(child.wait() == killed(SIGKILL));
        handle(SIGCHLD, SA_NOCLDWAIT);
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::_exit(0);
        }
        for (;;) {
            const pid_t got = ::waitpid(pid, nullptr, 0);
            if (got == -1 && errno == EINTR) {
                continue;
            }
            CHILD_CHECK(got == -1 && errno == ECHILD);
            break;
        }
    });
}

TEST_CASE("threads: a process signal goes to a thread that does not block it") {
    in_child([] {
        static std::atomic<pid_t> receiver{0};
        struct sigaction action {};
        action.sa_handler = [](int) { receiver = gettid_now(); };
        ::sigaction(SIGUSR1, &action, nullptr);
        Gate leave;
        Thread open_thread([&] { leave.wait(); });
        const pid_t tid = open_thread.tid();
        block({SIGUSR1});
        ::kill(::getpid(), SIGUSR1);
        CHILD_CHECK(eventually([] { return receiver != 0; }));
        CHILD_CHECK(receiver == tid);
        leave.open();
    });
}

TEST_CASE("threads: pthread_kill reaches exactly that thread, pending signals are its own") {
    in_child([] {
        static std::atomic<pid_t> receiver{0};
        struct sigaction action {};
        action.sa_handler = [](int) { receiver = gettid_now(); };
        ::sigaction(SIGUSR1, &action, nullptr);
        block({SIGUSR1});
        Gate go;
        std::atomic<bool> own_pending{false};
        Thread thread([&] {  // inherits the mask
            go.wait();
            sigset_t pending;
            ::sigpending(&pending);
            own_pending = ::sigismember(&pending, SIGUSR1);
            const sigset_t set = set_of({SIGUSR1});
            ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
        });
        const pid_t tid = thread.tid();
        CHILD_CHECK(::pthread_kill(thread.handle(), SIGUSR1) == 0);
        sigset_t mine;
        ::sigpending(&mine);
        CHILD_CHECK(!::sigismember(&mine, SIGUSR1));
        go.open();
        thread.join();
        CHILD_CHECK(own_pending);
        CHILD_CHECK(receiver == tid);
    });
}

TEST_CASE("threads: a fatal signal ends the whole process whatever its threads do") {
    CHECK(run_in_child([] {
              Pipe pipe;
              Thread blocked([&] {
                  char c;
                  (void)::read(pipe.read_end.get(), &c, 1);
              });
              Thread spinning([] { spin_forever(); });
              wait_until_blocked(::getpid(), blocked.tid());
              ::pthread_kill(blocked.handle(), SIGTERM);
              ::pause();
          }) == killed(SIGTERM));
}

TEST_CASE("signal: a computing process without system calls is interrupted") {
    in_child([] {
        handle(SIGUSR1);
        const pid_t pid = ::getpid();
        Gate ready;
        Child killer([&, pid] {
            ready.wait();
            ::kill(pid, SIGUSR1);
        });
        ready.open();
        while (calls == 0) {  // no system call in here
        }
        CHILD_CHECK(killer.wait() == exited(0));
    });
}

TEST_CASE("kill: minus one's own group reaches all its members") {
    Gate ready, done;
    Child leader([&] {
        ::setpgid(0, 0);
        Child a([&] {
            ready.open();
            ::pause();
        });
        Child b([&] {
            ready.open();
            ::pause();
        });
        ::signal(SIGUSR1, SIG_IGN);
        ready.wait();
        ready.wait();
        CHILD_THAT(::kill(0, SIGUSR1), succeeds());
        CHILD_CHECK(a.wait() == killed(SIGUSR1));
        CHILD_CHECK(b.wait() == killed(SIGUSR1));
        CHILD_THAT(::kill(-0x7ffffff, 0), fails_with(ESRCH));
    });
    CHECK(leader.wait() == exited(0));
}

TEST_CASE("kill: minus one reaches everybody else and spares the caller") {
    SKIP_UNLESS(running_in_sentry(), "kill(-1) would end the machine's processes");
    in_child([] {
        // The other members: only those of this pid namespace whose end nobody misses.
        ::setuid(12345);
        Child other([] { ::pause(); });
        wait_until_blocked(other.pid());
        CHILD_THAT(::kill(-1, SIGTERM), succeeds());
        CHILD_CHECK(other.wait() == killed(SIGTERM));
    });
}

TEST_CASE("kill: another user's process is refused with EPERM") {
    Child root_owned([] { ::pause(); });
    in_child([&] {
        CHILD_THAT(::setuid(12345), succeeds());
        CHILD_THAT(::kill(root_owned.pid(), 0), fails_with(EPERM));
        CHILD_THAT(::kill(root_owned.pid(), SIGTERM), fails_with(EPERM));
        CHILD_THAT(::kill(::getpid(), 0), succeeds());
    });
    CHECK(root_owned.running());
}

TEST_CASE("sigqueue: si_code may not pretend to be the kernel towards others") {
    Child other([] { ::pause(); });
    siginfo_t info{};
    info.si_signo = SIGUSR1;
    info.si_code = SI_USER;
    CHECK_THAT(::syscall(SYS_rt_sigqueueinfo, other.pid(), SIGUSR1, &info), fails_with(EPERM));
    info.si_code = SI_TKILL;
    CHECK_THAT(::syscall(SYS_rt_sigqueueinfo, other.pid(), SIGUSR1, &info), fails_with(EPERM));
    CHECK_THAT(::syscall(SYS_rt_sigqueueinfo, other.pid(), SIGUSR1, bad<siginfo_t>()),
               fails_with(EFAULT));
}

TEST_CASE("alarm: SIGALRM comes, and the remaining seconds are told") {
    in_child([] {
        handle(SIGALRM);
        CHILD_CHECK(::alarm(100) == 0);
        const unsigned rest = ::alarm(1);
        CHILD_CHECK(rest > 90 && rest <= 100);
        CHILD_THAT(::pause(), fails_with(EINTR));
        CHILD_CHECK(calls == 1);
        CHILD_CHECK(::alarm(0) == 0);
    });
}

}  // namespace
