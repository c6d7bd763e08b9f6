// Process groups, sessions, stop and continue, wait with WUNTRACED and WCONTINUED.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

GUEST_HELPER(wait_for_end) {
    write_all(1, "x");
    ::pause();
    return 0;
}

volatile sig_atomic_t calls = 0;
void count(int) { calls = calls + 1; }

void handle(int signal, int flags = 0) {
    struct sigaction action {};
    action.sa_handler = count;
    action.sa_flags = flags;
    CHILD_THAT(::sigaction(signal, &action, nullptr), succeeds());
}

/// Stops oneself in a group of one's own: the terminal's stop signals do nothing to an orphaned
/// group, and the one the tests run in may be such. One's own is not: the parent is in the session.
void stop_in_own_group(int signal) {
    ::setpgid(0, 0);
    ::raise(signal);
    ::pause();
}

TEST_CASE("process group: a child starts in its parent's group and session") {
    const pid_t group = ::getpgrp(), session = ::getsid(0);
    in_child([=] {
        CHILD_CHECK(::getpgrp() == group);
        CHILD_CHECK(::getsid(0) == session);
        CHILD_CHECK(::getpgid(::getppid()) == group);
    });
}

TEST_CASE("setpgid: a child makes its own group, the parent may do it for it") {
    in_child([] {
        CHILD_THAT(::setpgid(0, 0), succeeds());
        CHILD_CHECK(::getpgrp() == ::getpid());
    });
    Child child([] { ::pause(); });
    CHECK_THAT(::setpgid(child.pid(), child.pid()), succeeds());
    CHECK_THAT(::getpgid(child.pid()), succeeds_with(child.pid()));
}

TEST_CASE("setpgid: children join each other's group") {
    in_child([] {
        Child leader([] { ::pause(); });
        Child member([] { ::pause(); });
        CHILD_THAT(::setpgid(leader.pid(), 0), succeeds());
        CHILD_THAT(::setpgid(member.pid(), leader.pid()), succeeds());
        CHILD_THAT(::getpgid(member.pid()), succeeds_with(leader.pid()));
        CHILD_THAT(::kill(-leader.pid(), SIGTERM), succeeds());
        CHILD_CHECK(leader.wait() == killed(SIGTERM));
        CHILD_CHECK(member.wait() == killed(SIGTERM));
    });
}

TEST_CASE("setpgid: what is not allowed fails with the right errno") {
    CHECK_THAT(::setpgid(0, -1), fails_with(EINVAL));
    CHECK_THAT(::setpgid(0x7ffffff0, 0), fails_with(ESRCH));
    CHECK_THAT(::setpgid(::getppid(), 0), fails_with(ESRCH));
    in_child([] {
        CHILD_THAT(::setpgid(0, 0x7ffffff), fails_with(EPERM));
        Pipe ready;
        Child executed([&] {
            ::dup2(ready.write_end.get(), 1);
            exec_helper("wait_for_end");
        });
        CHILD_CHECK(read_exactly(ready.read_end.get(), 1) == "x");
        CHILD_THAT(::setpgid(executed.pid(), 0), fails_with(EACCES));
        Gate made;
        Child leader([&] {
            CHILD_CHECK(::setsid() == ::getpid());
            CHILD_THAT(::setpgid(0, 0), fails_with(EPERM));
            made.open();
            ::pause();
        });
        made.wait();
        CHILD_THAT(::setpgid(leader.pid(), 0), fails_with(EPERM));
    });
    CHECK_THAT(::getpgid(0x7ffffff0), fails_with(ESRCH));
    CHECK_THAT(::getsid(0x7ffffff0), fails_with(ESRCH));
}

TEST_CASE("setsid: makes session and group, and fails for a group leader") {
    in_child([] {
        CHILD_CHECK(::setsid() == ::getpid());
        CHILD_CHECK(::getsid(0) == ::getpid());
        CHILD_CHECK(::getpgrp() == ::getpid());
        CHILD_THAT(::setsid(), fails_with(EPERM));
    });
    in_child([] {
        CHILD_THAT(::setpgid(0, 0), succeeds());
        CHILD_THAT(::setsid(), fails_with(EPERM));
    });
}

TEST_CASE("setsid: a pid that still names a living group is not reused as a session") {
    in_child([] {
        CHILD_THAT(::setpgid(0, 0), succeeds());
        const pid_t old_group = ::getpid();
        Gate leave;
        Child member([&] { leave.wait(); });
        CHILD_THAT(::getpgid(member.pid()), succeeds_with(old_group));
        CHILD_THAT(::setsid(), fails_with(EPERM));
        leave.open();
        CHILD_CHECK(member.wait() == exited(0));
    });
}

TEST_CASE("stop: the parent sees the stop once and the continuation once") {
    Child child([] { ::pause(); });
    child.kill(SIGSTOP);
    CHECK(child.wait(WUNTRACED) == stopped(SIGSTOP));
    CHECK_THAT(::waitpid(child.pid(), nullptr, WUNTRACED | WNOHANG), succeeds_with(0));
    CHECK(thread_state(child.pid(), child.pid()) == 'T');
    child.kill(SIGCONT);
    CHECK(child.wait(WCONTINUED) == continued());
    CHECK_THAT(::waitpid(child.pid(), nullptr, WUNTRACED | WCONTINUED | WNOHANG), succeeds_with(0));
    child.kill(SIGTERM);
    CHECK(child.wait() == killed(SIGTERM));
}

TEST_CASE("stop: without WUNTRACED nobody is told") {
    Child child([] { ::pause(); });
    child.kill(SIGSTOP);
    REQUIRE(eventually([&] { return thread_state(child.pid(), child.pid()) == 'T'; }));
    CHECK_THAT(::waitpid(child.pid(), nullptr, WNOHANG), succeeds_with(0));
}

TEST_CASE("stop: waitid says CLD_STOPPED and CLD_CONTINUED") {
    Child child([] { stop_in_own_group(SIGTSTP); });
    siginfo_t info{};
    REQUIRE_THAT(::waitid(P_PID, child.pid(), &info, WSTOPPED), succeeds());
    CHECK(info.si_code == CLD_STOPPED);
    CHECK(info.si_status == SIGTSTP);
    child.kill(SIGCONT);
    info = {};
    REQUIRE_THAT(::waitid(P_PID, child.pid(), &info, WCONTINUED), succeeds());
    CHECK(info.si_code == CLD_CONTINUED);
    CHECK(info.si_status == SIGCONT);
}

TEST_CASE("stop: a stopped process runs nothing, not even handlers, until SIGCONT") {
    Mapping page(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    auto* counter = page.as<std::atomic<long>>();
    Child child([&] {
        ::signal(SIGUSR1, [](int) { ::_exit(9); });
        for (;;) {
            ++*counter;
        }
    });
    REQUIRE(eventually([&] { return *counter > 0; }));
    child.kill(SIGSTOP);
    CHECK(child.wait(WUNTRACED) == stopped(SIGSTOP));
    const long at_stop = *counter;
    child.kill(SIGUSR1);
    CHECK(child.running());
    CHECK(*counter == at_stop);
    child.kill(SIGCONT);
    CHECK(child.wait() == exited(9));
}

TEST_CASE("stop: SIGKILL ends a stopped process") {
    Child child([] { ::pause(); });
    child.kill(SIGSTOP);
    CHECK(child.wait(WUNTRACED) == stopped(SIGSTOP));
    child.kill(SIGKILL);
    CHECK(child.wait() == killed(SIGKILL));
}

TEST_CASE("stop: all threads stop together and go on together") {
    Mapping page(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    auto* counters = page.as<std::atomic<long>>();
    Child child([&] {
        Thread other([&] {
            for (;;) {
                ++counters[1];
            }
        });
        for (;;) {
            ++counters[0];
        }
    });
    REQUIRE(eventually([&] { return counters[0] > 0 && counters[1] > 0; }));
    child.kill(SIGSTOP);
    CHECK(child.wait(WUNTRACED) == stopped(SIGSTOP));
    const long a = counters[0], b = counters[1];
    Child other_work([] {
        for (int i = 0; i < 100; ++i) {
            ::getppid();
        }
    });
    CHECK(other_work.wait() == exited(0));
    CHECK(counters[0] == a);
    CHECK(counters[1] == b);
    child.kill(SIGCONT);
    CHECK(eventually([&] { return counters[0] > a && counters[1] > b; }));
}

TEST_CASE("stop: SIGTSTP, SIGTTIN and SIGTTOU stop by default, a handler prevents it") {
    for (const int signal : {SIGTSTP, SIGTTIN, SIGTTOU}) {
        Child child([=] { stop_in_own_group(signal); });
        CHECK(child.wait(WUNTRACED) == stopped(signal));
    }
    in_child([] {
        handle(SIGTSTP);
        ::raise(SIGTSTP);
        CHILD_CHECK(calls == 1);
    });
}

TEST_CASE("stop: an orphaned process group is not stopped by SIGTSTP, but by SIGSTOP") {
    in_child([] {
        CHILD_CHECK(::setsid() == ::getpid());
        // This session leader's group has no parent in the session: it is orphaned.
        ::raise(SIGTSTP);
        calls = 1;
    });
}

TEST_CASE(
    "continue: SIGCONT runs its handler and removes pending stops, stops remove a pending "
    "SIGCONT") {
    in_child([] {
        handle(SIGCONT);
        sigset_t set, pending;
        ::sigemptyset(&set);
        ::sigaddset(&set, SIGTSTP);
        ::sigaddset(&set, SIGCONT);
        ::sigprocmask(SIG_BLOCK, &set, nullptr);
        ::kill(::getpid(), SIGTSTP);
        ::sigpending(&pending);
        CHILD_CHECK(::sigismember(&pending, SIGTSTP));
        ::kill(::getpid(), SIGCONT);
        ::sigpending(&pending);
        CHILD_CHECK(!::sigismember(&pending, SIGTSTP));
        CHILD_CHECK(::sigismember(&pending, SIGCONT));
        ::kill(::getpid(), SIGTSTP);
        ::sigpending(&pending);
        CHILD_CHECK(::sigismember(&pending, SIGTSTP));
        CHILD_CHECK(!::sigismember(&pending, SIGCONT));
        ::kill(::getpid(), SIGCONT);
        ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
        CHILD_CHECK(calls == 1);
    });
}

TEST_CASE("continue: a handler of SIGCONT runs after a real stop") {
    Child child([] {
        handle(SIGCONT);
        ::raise(SIGSTOP);
        ::_exit(calls == 1 ? 0 : 1);
    });
    CHECK(child.wait(WUNTRACED) == stopped(SIGSTOP));
    child.kill(SIGCONT);
    CHECK(child.wait() == exited(0));
}

TEST_CASE("SIGCHLD: tells stops and continuations unless SA_NOCLDSTOP") {
    in_child([] {
        static siginfo_t last;
        struct sigaction action {};
        action.sa_flags = SA_SIGINFO | SA_RESTART;
        action.sa_sigaction = [](int, siginfo_t* info, void*) {
            last = *info;
            calls = calls + 1;
        };
        ::sigaction(SIGCHLD, &action, nullptr);
        Child child([] { ::pause(); });
        child.kill(SIGSTOP);
        CHILD_CHECK(child.wait(WUNTRACED) == stopped(SIGSTOP));
        CHILD_CHECK(eventually([] { return calls == 1; }));
        CHILD_CHECK(last.si_code == CLD_STOPPED);
        CHILD_CHECK(last.si_status == SIGSTOP);
        CHILD_CHECK(last.si_pid == child.pid());
        child.kill(SIGCONT);
        CHILD_CHECK(child.wait(WCONTINUED) == continued());
        CHILD_CHECK(eventually([] { return calls == 2; }));
        CHILD_CHECK(last.si_code == CLD_CONTINUED);
    });
}

TEST_CASE(
    "orphaned group: its stopped members get SIGHUP and SIGCONT when the link to the session "
    "dies") {
    Pipe report;
    Child session([&] {
        CHILD_CHECK(::setsid() == ::getpid());
        Child middle([&] {
            const pid_t job = ::fork();
            if (job == 0) {
                ::setpgid(0, 0);
                ::signal(SIGHUP, [](int) { calls = calls + 1; });
                ::raise(SIGSTOP);
                // Continued without anybody's help; SIGHUP came first.
                write_all(report.write_end.get(), calls == 1 ? "hup" : "no hup");
                ::_exit(0);
            }
            int status = 0;
            ::waitpid(job, &status, WUNTRACED);
            CHILD_CHECK(WaitStatus(status) == stopped(SIGSTOP));
            ::_exit(0);
        });
        CHILD_CHECK(middle.wait() == exited(0));
        report.write_end.reset();
        CHILD_CHECK(read_exactly(report.read_end.get(), 3) == "hup");
    });
    CHECK(session.wait() == exited(0));
}

TEST_CASE(
    "stop: a stopped child that ends by exit of its group is reported as ended, not stopped") {
    Child child([] { ::pause(); });
    child.kill(SIGSTOP);
    CHECK(child.wait(WUNTRACED) == stopped(SIGSTOP));
    child.kill(SIGTERM);  // stays pending while stopped
    CHECK(child.running());
    child.kill(SIGCONT);
    CHECK(child.wait(WUNTRACED) == killed(SIGTERM));
}

TEST_CASE("SIGCONT: may be sent within a session by another user") {
    in_child([] {
        Child root_owned([] { ::pause(); });
        Child other([&] {
            CHILD_THAT(::setuid(12345), succeeds());
            CHILD_THAT(::kill(root_owned.pid(), SIGCONT), succeeds());
            CHILD_THAT(::kill(root_owned.pid(), SIGSTOP), fails_with(EPERM));
        });
        CHILD_CHECK(other.wait() == exited(0));
    });
}

}  // namespace
