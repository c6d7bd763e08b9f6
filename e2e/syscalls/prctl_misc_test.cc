// prctl(2), uname(2), sysinfo(2), getrandom(2), getrusage(2), times(2), sched_*(2), getcpu(2),
// personality.

#include <linux/membarrier.h>
#include <sched.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

TEST_CASE("uname: Linux on x86_64, six strings that end") {
    Fenced<utsname> name;
    REQUIRE_THAT(::uname(name.get()), succeeds());
    CHECK(std::string(name->sysname) == "Linux");
    CHECK(std::string(name->machine) == "x86_64");
    CHECK(std::stoi(name->release) >= 4);
    CHECK(std::strlen(name->nodename) > 0);
    CHECK(name.intact());
    CHECK_THAT(::syscall(SYS_uname, bad<utsname>()), fails_with(EFAULT));
}

TEST_CASE("sethostname: needs privilege and a sane length") {
    in_child([] {
        CHILD_THAT(::setuid(12345), succeeds());
        CHILD_THAT(::sethostname("x", 1), fails_with(EPERM));
    });
    in_child([] {
        if (!running_in_sentry() && ::unshare(CLONE_NEWUTS) != 0) {
            return;
        }
        CHILD_THAT(::sethostname("", static_cast<size_t>(-1)), fails_with(EINVAL));
        CHILD_THAT(::sethostname(std::string(65, 'x').c_str(), 65), fails_with(EINVAL));
        CHILD_THAT(::sethostname("moat-test", 9), succeeds());
        utsname name;
        ::uname(&name);
        CHILD_CHECK(std::string(name.nodename) == "moat-test");
    });
}

TEST_CASE("sysinfo: memory and processes make sense") {
    Fenced<struct sysinfo> info;
    REQUIRE_THAT(::sysinfo(info.get()), succeeds());
    CHECK(info->totalram > 0);
    CHECK(info->freeram <= info->totalram);
    CHECK(info->mem_unit >= 1);
    CHECK(info->procs >= 1);
    CHECK(info->uptime >= 0);  // whole seconds: a kernel may be younger than one
    CHECK(info.intact());
    CHECK_THAT(::syscall(SYS_sysinfo, bad<void>()), fails_with(EFAULT));
}

TEST_CASE("getrandom: fills, differs, checks its flags") {
    FencedBuffer a(100), b(100);
    CHECK_THAT(::getrandom(a.data(), 100, 0), succeeds_with(100));
    CHECK_THAT(::getrandom(b.data(), 100, GRND_NONBLOCK), succeeds_with(100));
    CHECK(std::memcmp(a.data(), b.data(), 100) != 0);
    CHECK(a.intact());
    CHECK_THAT(::getrandom(a.data(), 0, 0), succeeds_with(0));
    CHECK_THAT(::getrandom(a.data(), 10, 0x100), fails_with(EINVAL));
    CHECK_THAT(::getrandom(bad<char>(), 10, 0), fails_with(EFAULT));
}

TEST_CASE("PR_SET_NAME: sets this thread's name, cut at fifteen bytes") {
    in_child([] {
        CHILD_THAT(::prctl(PR_SET_NAME, "a-much-too-long-name"), succeeds());
        FencedBuffer name(16);
        CHILD_THAT(::prctl(PR_GET_NAME, name.data()), succeeds());
        CHILD_CHECK(std::string(name.data()) == "a-much-too-long");
        CHILD_CHECK(name.intact());
        Thread thread([] {
            char mine[16];
            ::prctl(PR_SET_NAME, "other");
            ::prctl(PR_GET_NAME, mine);
            CHILD_CHECK(std::string(mine) == "other");
        });
        thread.join();
        CHILD_THAT(::prctl(PR_GET_NAME, name.data()), succeeds());
        CHILD_CHECK(std::string(name.data()) == "a-much-too-long");
        CHILD_THAT(::prctl(PR_SET_NAME, bad<char>()), fails_with(EFAULT));
    });
}

TEST_CASE("PR_SET_PDEATHSIG: the parent's death sends the signal") {
    Pipe report;
    Child parent([&] {
        Gate armed;
        const pid_t pid = ::fork();
        if (pid == 0) {
            sigset_t set;
            ::sigemptyset(&set);
            ::sigaddset(&set, SIGUSR1);
            ::sigprocmask(SIG_BLOCK, &set, nullptr);
            CHILD_THAT(::prctl(PR_SET_PDEATHSIG, SIGUSR1), succeeds());
            int signal = 0;
            CHILD_THAT(::prctl(PR_GET_PDEATHSIG, &signal), succeeds());
            CHILD_CHECK(signal == SIGUSR1);
            armed.open();
            const timespec limit{kPatienceSeconds, 0};
            write_all(report.write_end.get(),
                      ::sigtimedwait(&set, nullptr, &limit) == SIGUSR1 ? "yes" : "no");
            ::_exit(0);
        }
        armed.wait();
    });
    CHECK(parent.wait() == exited(0));
    report.write_end.reset();
    CHECK(read_all(report.read_end.get()) == "yes");
}

TEST_CASE("PR_SET_CHILD_SUBREAPER: orphans come to the subreaper") {
    in_child([] {
        CHILD_THAT(::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), succeeds());
        int value = 0;
        CHILD_THAT(::prctl(PR_GET_CHILD_SUBREAPER, &value, 0, 0, 0), succeeds());
        CHILD_CHECK(value == 1);
        Gate leave;
        const pid_t me = ::getpid();
        Child middle([&] {
            if (::fork() == 0) {
                leave.wait();
                ::_exit(::getppid() == me ? 42 : 43);
            }
        });
        CHILD_CHECK(middle.wait() == exited(0));
        leave.open();
        int status = 0;
        CHILD_CHECK(::wait(&status) > 0);
        CHILD_CHECK(WaitStatus(status) == exited(42));
    });
}

TEST_CASE("prctl: dumpable, timer slack, unknown options") {
    in_child([] {
        CHILD_THAT(::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), succeeds());
        CHILD_THAT(::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), succeeds_with(0));
        CHILD_THAT(::prctl(PR_SET_DUMPABLE, 5, 0, 0, 0), fails_with(EINVAL));
        CHILD_THAT(::prctl(0x12345678, 0, 0, 0, 0), fails_with(EINVAL));
        CHILD_THAT(::prctl(PR_SET_PDEATHSIG, 99), fails_with(EINVAL));
    });
}

int64_t microseconds(const rusage& r) {
    return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * int64_t{1'000'000} + r.ru_utime.tv_usec +
           r.ru_stime.tv_usec;
}

void take_30_ms_of_processor() {
    rusage mine;
    do {
        ::getrusage(RUSAGE_SELF, &mine);
    } while (microseconds(mine) < 30'000);
}

GUEST_HELPER(own_processor_time) {
    rusage mine;
    ::getrusage(RUSAGE_SELF, &mine);
    return microseconds(mine) >= 30'000 ? 0 : 1;
}

TEST_CASE("getrusage: what a process took before an execve counts, for itself and its parent") {
    const pid_t pid = ::fork();
    if (pid == 0) {
        take_30_ms_of_processor();
        ::_exit(exec_helper("own_processor_time"));
    }
    int status = -1;
    rusage usage{};
    CHECK_THAT(::wait4(pid, &status, 0, &usage), succeeds_with(pid));
    CHECK(status == 0);
    CHECK(microseconds(usage) >= 30'000);
}

TEST_CASE("getrusage: processor time grows, children count when they were waited for") {
    rusage before, after;
    REQUIRE_THAT(::getrusage(RUSAGE_CHILDREN, &before), succeeds());
    CHECK(run_in_child(take_30_ms_of_processor) == exited(0));
    REQUIRE_THAT(::getrusage(RUSAGE_CHILDREN, &after), succeeds());
    CHECK(microseconds(after) - microseconds(before) >= 20'000);
    Fenced<rusage> thread;
    CHECK_THAT(::getrusage(RUSAGE_THREAD, thread.get()), succeeds());
    CHECK(thread.intact());
    CHECK_THAT(::syscall(SYS_getrusage, 9, &after), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_getrusage, 0, bad<rusage>()), fails_with(EFAULT));
}

TEST_CASE("times: returns ticks that do not go back") {
    tms a, b;
    const clock_t first = ::times(&a), second = ::times(&b);
    CHECK(second >= first);
    CHECK(b.tms_utime >= a.tms_utime);
    CHECK_THAT(::syscall(SYS_times, bad<tms>()), fails_with(EFAULT));
}

TEST_CASE("getcpu: the processor is one of those allowed") {
    unsigned cpu = 9999, node = 9999;
    REQUIRE_THAT(::syscall(SYS_getcpu, &cpu, &node, nullptr), succeeds());
    cpu_set_t set;
    REQUIRE_THAT(::sched_getaffinity(0, sizeof set, &set), succeeds());
    CHECK(CPU_ISSET(cpu, &set));
}

TEST_CASE("sched: affinity can be narrowed, an empty one is refused") {
    in_child([] {
        cpu_set_t set, one, none;
        CHILD_THAT(::sched_getaffinity(0, sizeof set, &set), succeeds());
        int first = 0;
        while (!CPU_ISSET(first, &set)) {
            ++first;
        }
        CPU_ZERO(&one);
        CPU_ZERO(&none);
        CPU_SET(first, &one);
        CHILD_THAT(::sched_setaffinity(0, sizeof one, &one), succeeds());
        CHILD_THAT(::sched_getaffinity(0, sizeof set, &set), succeeds());
        CHILD_CHECK(CPU_COUNT(&set) == 1 && CPU_ISSET(first, &set));
        CHILD_THAT(::sched_setaffinity(0, sizeof none, &none), fails_with(EINVAL));
    });
}

TEST_CASE("sched: policy and priorities of an ordinary process") {
    CHECK_THAT(::sched_getscheduler(0), succeeds_with(SCHED_OTHER));
    CHECK_THAT(::sched_get_priority_max(SCHED_FIFO), succeeds_with(99));
    CHECK_THAT(::sched_get_priority_min(SCHED_OTHER), succeeds_with(0));
    CHECK_THAT(::sched_get_priority_max(77), fails_with(EINVAL));
    in_child([] {
        CHILD_THAT(::setpriority(PRIO_PROCESS, 0, 5), succeeds());
        errno = 0;
        CHILD_CHECK(::getpriority(PRIO_PROCESS, 0) == 5);
        CHILD_THAT(::setuid(12345), succeeds());
        CHILD_THAT(::setpriority(PRIO_PROCESS, 0, -5), fails_with_any({EACCES, EPERM}));
        CHILD_THAT(::getpriority(static_cast<__priority_which>(9), 0), fails_with(EINVAL));
    });
}

TEST_CASE("membarrier: answers the query, refuses unregistered expedited calls") {
    const long commands = ::syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    SKIP_UNLESS(commands >= 0 || errno != ENOSYS, "no membarrier");
    CHECK(commands >= 0);
    in_child([] {
        CHILD_THAT(::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0),
                   fails_with_any({EPERM, EINVAL}));
    });
    CHECK_THAT(::syscall(SYS_membarrier, 1 << 30, 0, 0), fails_with(EINVAL));
}

TEST_CASE("getpid family: ids of parent, group, session agree") {
    CHECK(::getpid() > 0);
    CHECK(::getpgid(0) == ::getpgrp());
    CHECK(::getsid(::getpid()) == ::getsid(0));
}

TEST_CASE("personality: is Linux's") { CHECK_THAT(::personality(0xffffffff), succeeds()); }

TEST_CASE("syscall numbers: holes and the far end answer ENOSYS") {
    CHECK_THAT(::syscall(500), fails_with(ENOSYS));
    CHECK_THAT(::syscall(1000), fails_with(ENOSYS));
    CHECK_THAT(::syscall(180), fails_with(ENOSYS));  // nfsservctl, gone
}

}  // namespace
