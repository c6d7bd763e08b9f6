// Walks the system call numbers with hostile and random arguments in forked children. What is
// judged: no answer outside Linux's errnos (an internal restart code that leaks, say), and that the
// parent, and with it the kernel below, works on as before.
//
// Natively only calls that cannot hurt the machine, as an unprivileged user in a directory of its
// own. In the sentry (MOAT_GUEST=1) all of them, as root, too. GUEST_FUZZ_SEED repeats a run,
// GUEST_FUZZ_ROUNDS sets how often each number is called.

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

constexpr int kLastNumber = 470;
constexpr int kBadAnswer = 77;

/// splitmix64: good enough, and the same everywhere for one seed.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t next() {
        uint64_t z = (state_ += 0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }
    uint64_t below(uint64_t n) { return next() % n; }

  private:
    uint64_t state_;
};

/// The answer as the kernel gave it: libc would hide codes that are no errnos.
long raw(long number, const long* a) {
    long result;
    register long r10 asm("r10") = a[3];
    register long r8 asm("r8") = a[4];
    register long r9 asm("r9") = a[5];
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}

/// Calls without a way to reach beyond the child's own process, directory and descriptors.
const std::set<long>& safe_on_a_machine() {
    static const std::set<long> all{SYS_read,
                                    SYS_write,
                                    SYS_open,
                                    SYS_close,
                                    SYS_stat,
                                    SYS_fstat,
                                    SYS_lstat,
                                    SYS_poll,
                                    SYS_lseek,
                                    SYS_mmap,
                                    SYS_mprotect,
                                    SYS_munmap,
                                    SYS_brk,
                                    SYS_rt_sigaction,
                                    SYS_rt_sigprocmask,
                                    SYS_ioctl,
                                    SYS_pread64,
                                    SYS_pwrite64,
                                    SYS_readv,
                                    SYS_writev,
                                    SYS_access,
                                    SYS_pipe,
                                    SYS_select,
                                    SYS_sched_yield,
                                    SYS_mremap,
                                    SYS_msync,
                                    SYS_mincore,
                                    SYS_madvise,
                                    SYS_dup,
                                    SYS_dup2,
                                    SYS_nanosleep,
                                    SYS_getitimer,
                                    SYS_getpid,
                                    SYS_sendfile,
                                    SYS_socket,
                                    SYS_accept,
                                    SYS_recvfrom,
                                    SYS_recvmsg,
                                    SYS_shutdown,
                                    SYS_listen,
                                    SYS_getsockname,
                                    SYS_getpeername,
                                    SYS_socketpair,
                                    SYS_getsockopt,
                                    SYS_setsockopt,
                                    SYS_wait4,
                                    SYS_uname,
                                    SYS_fcntl,
                                    SYS_flock,
                                    SYS_fsync,
                                    SYS_fdatasync,
                                    SYS_truncate,
                                    SYS_ftruncate,
                                    SYS_getdents,
                                    SYS_getcwd,
                                    SYS_readlink,
                                    SYS_gettimeofday,
                                    SYS_getrlimit,
                                    SYS_getrusage,
                                    SYS_sysinfo,
                                    SYS_times,
                                    SYS_getuid,
                                    SYS_getgid,
                                    SYS_geteuid,
                                    SYS_getegid,
                                    SYS_getppid,
                                    SYS_getpgrp,
                                    SYS_getgroups,
                                    SYS_getresuid,
                                    SYS_getresgid,
                                    SYS_getpgid,
                                    SYS_getsid,
                                    SYS_capget,
                                    SYS_rt_sigpending,
                                    SYS_rt_sigtimedwait,
                                    SYS_rt_sigsuspend,
                                    SYS_sigaltstack,
                                    SYS_statfs,
                                    SYS_fstatfs,
                                    SYS_getpriority,
                                    SYS_sched_getparam,
                                    SYS_sched_getscheduler,
                                    SYS_sched_get_priority_max,
                                    SYS_sched_get_priority_min,
                                    SYS_sched_rr_get_interval,
                                    SYS_arch_prctl,
                                    SYS_gettid,
                                    SYS_readahead,
                                    SYS_getxattr,
                                    SYS_lgetxattr,
                                    SYS_fgetxattr,
                                    SYS_listxattr,
                                    SYS_llistxattr,
                                    SYS_flistxattr,
                                    SYS_time,
                                    SYS_futex,
                                    SYS_sched_getaffinity,
                                    SYS_epoll_create,
                                    SYS_getdents64,
                                    SYS_set_tid_address,
                                    SYS_restart_syscall,
                                    SYS_fadvise64,
                                    SYS_timer_create,
                                    SYS_timer_gettime,
                                    SYS_timer_getoverrun,
                                    SYS_timer_delete,
                                    SYS_clock_gettime,
                                    SYS_clock_getres,
                                    SYS_clock_nanosleep,
                                    SYS_epoll_wait,
                                    SYS_epoll_ctl,
                                    SYS_waitid,
                                    SYS_inotify_init,
                                    SYS_inotify_add_watch,
                                    SYS_inotify_rm_watch,
                                    SYS_openat,
                                    SYS_newfstatat,
                                    SYS_readlinkat,
                                    SYS_faccessat,
                                    SYS_pselect6,
                                    SYS_ppoll,
                                    SYS_set_robust_list,
                                    SYS_get_robust_list,
                                    SYS_splice,
                                    SYS_tee,
                                    SYS_vmsplice,
                                    SYS_epoll_pwait,
                                    SYS_signalfd,
                                    SYS_timerfd_create,
                                    SYS_eventfd,
                                    SYS_fallocate,
                                    SYS_timerfd_settime,
                                    SYS_timerfd_gettime,
                                    SYS_accept4,
                                    SYS_signalfd4,
                                    SYS_eventfd2,
                                    SYS_epoll_create1,
                                    SYS_dup3,
                                    SYS_pipe2,
                                    SYS_inotify_init1,
                                    SYS_preadv,
                                    SYS_pwritev,
                                    SYS_recvmmsg,
                                    SYS_prlimit64,
                                    SYS_name_to_handle_at,
                                    SYS_getcpu,
                                    SYS_sched_getattr,
                                    SYS_getrandom,
                                    SYS_memfd_create,
                                    SYS_membarrier,
                                    SYS_copy_file_range,
                                    SYS_preadv2,
                                    SYS_pwritev2,
                                    SYS_statx,
                                    SYS_openat2,
                                    SYS_faccessat2,
                                    SYS_epoll_pwait2,
                                    SYS_close_range,
                                    447,
                                    500,
                                    1000,
                                    0x3fffffff};
    return all;
}

/// Calls that a walk as root in the sentry must leave out: they would end the tests themselves.
bool ends_the_tests(long number) {
    switch (number) {
        case SYS_kill:
        case SYS_tkill:
        case SYS_tgkill:
        case SYS_rt_sigqueueinfo:
        case SYS_rt_tgsigqueueinfo:
        case SYS_pidfd_send_signal:
        case SYS_reboot:
        case SYS_setpgid:
        case SYS_ptrace:
        case SYS_process_vm_writev:
        case SYS_process_madvise:
        case SYS_unlink:
        case SYS_unlinkat:
        case SYS_rename:
        case SYS_renameat:
        case SYS_renameat2:
        case SYS_umount2:
        case SYS_mount:
        case SYS_move_mount:
        case SYS_pivot_root:
        case SYS_chroot:
        case SYS_vhangup:
            return true;
        default:
            return false;
    }
}

/// Calls whose return is no answer: they end, replace or split the caller.
bool has_no_answer(long number) {
    switch (number) {
        case SYS_exit:
        case SYS_exit_group:
        case SYS_rt_sigreturn:
        case SYS_vfork:
        case SYS_fork:
        case SYS_clone:
        case SYS_clone3:
            return true;
        default:
            return false;
    }
}

/// What the arguments are drawn from, made anew in each child.
class Arguments {
  public:
    explicit Arguments(Random& random) : random_(random), writable_(4 * 4096) {
        for (size_t i = 0; i < writable_.size(); i += 8) {
            *writable_.as<uint64_t>(i) = random.below(4) == 0 ? random.next() : random.below(64);
        }
        std::memcpy(writable_.data() + 4096, "x", 2);
        std::memcpy(writable_.data() + 8192, "./x/../x", 9);
    }
    void add_descriptors() {
        int fds[2];
        for (int i = 0; i < 2; ++i) {
            if (::pipe2(fds, O_NONBLOCK * i) == 0) {
                fds_.insert(fds_.end(), {fds[0], fds[1]});
            }
        }
        if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0) {
            fds_.insert(fds_.end(), {fds[0], fds[1]});
        }
        fds_.push_back(::open("x", O_CREAT | O_RDWR, 0600));
        fds_.push_back(::open(".", O_RDONLY));
    }
    long draw() {
        static const long kEdges[] = {0,
                                      1,
                                      2,
                                      3,
                                      7,
                                      8,
                                      16,
                                      64,
                                      4095,
                                      4096,
                                      8192,
                                      65536,
                                      -1,
                                      -2,
                                      -4096,
                                      INT32_MAX,
                                      INT32_MIN,
                                      0xffffffff,
                                      1L << 32,
                                      1L << 47,
                                      INT64_MAX,
                                      INT64_MIN,
                                      0x7ffffffff000};
        switch (random_.below(10)) {
            case 0:
            case 1:
                return kEdges[random_.below(std::size(kEdges))];
            case 2:
                return fds_[random_.below(fds_.size())];
            case 3:
                return reinterpret_cast<long>(writable_.data() + 4096 * random_.below(4));
            case 4:
                // Over the end of what is mapped, not aligned.
                return reinterpret_cast<long>(writable_.data() + writable_.size() - 1 -
                                              random_.below(32));
            case 5:
                return reinterpret_cast<long>(bad_pointer());
            case 6:
                return reinterpret_cast<long>(read_only_page());
            case 7:
                return reinterpret_cast<long>(kernel_pointer());
            case 8:
                return static_cast<long>(random_.below(4096));
            default:
                return static_cast<long>(random_.next() >> random_.below(64));
        }
    }

  private:
    Random& random_;
    Mapping writable_;
    std::vector<int> fds_;
};

/// Where a child leaves its last call for the report; shared, and hostile to read.
struct Record {
    long number, result, args[6];
};

[[noreturn]] void torture(long number, uint64_t seed, int rounds, bool as_user,
                          const std::string& dir, Record* record) {
    Random random(seed);
    bad_pointer();
    read_only_page();
    Arguments arguments(random);
    if (::chdir(dir.c_str()) != 0) {
        ::_exit(1);
    }
    ::setsid();
    ::close_range(0, ~0U, 0);
    arguments.add_descriptors();
    const rlimit few{16, 16}, small{1 << 20, 1 << 20}, memory{1 << 30, 1 << 30};
    ::setrlimit(RLIMIT_FSIZE, &small);
    ::setrlimit(RLIMIT_AS, &memory);
    if (as_user) {
        ::setrlimit(RLIMIT_NPROC, &few);
        if (::setgroups(0, nullptr) != 0 || ::setgid(54555) != 0 || ::setuid(54555) != 0) {
            ::_exit(1);
        }
    }
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, nullptr);  // interrupts what blocks
    const itimerval often{{0, 5000}, {0, 5000}};
    ::setitimer(ITIMER_REAL, &often, nullptr);
    ::signal(SIGXFSZ, SIG_IGN);
    ::signal(SIGPIPE, SIG_IGN);
    const pid_t me = ::getpid();
    for (int i = 0; i < rounds; ++i) {
        long args[6];
        for (long& a : args) {
            a = arguments.draw();
        }
        record->number = number;
        std::memcpy(record->args, args, sizeof args);
        const long result = raw(number, args);
        if (::getpid() != me) {
            ::_exit(0);  // a fork's child
        }
        if (!has_no_answer(number) && result < 0 && result >= -4095 &&
            strerrorname_np(static_cast<int>(-result)) == nullptr) {
            record->result = result;
            ::_exit(kBadAnswer);
        }
    }
    ::_exit(0);
}

uint64_t choose_seed() {
    if (const char* given = ::getenv("GUEST_FUZZ_SEED")) {
        return std::strtoull(given, nullptr, 0);
    }
    timespec now;
    ::clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<uint64_t>(now.tv_nsec) ^ static_cast<uint64_t>(now.tv_sec) << 20;
}

int choose_rounds() {
    const char* given = ::getenv("GUEST_FUZZ_ROUNDS");
    return given != nullptr ? std::atoi(given) : 20;
}

/// What an undisturbed process can do: fork, talk through a pipe, map memory, make files.
bool still_works(const TempDir& dir) {
    Pipe pipe;
    Mapping map(4096);
    map.data()[0] = 1;
    const std::string path = dir.file("proof", "proof");
    return run_in_child([&] { write_all(pipe.write_end.get(), "ok"); }) == exited(0) &&
           read_exactly(pipe.read_end.get(), 2) == "ok" && read_file(path) == "proof";
}

/// The end of a child that may stop, block its signals or sleep: after two seconds it is killed.
WaitStatus end_of(Child& child) {
    timespec start, now;
    ::clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        const timespec pause{0, 200'000};
        ::nanosleep(&pause, nullptr);
        ::clock_gettime(CLOCK_MONOTONIC, &now);
    } while (child.running() && now.tv_sec - start.tv_sec < 2);
    child.kill(SIGKILL);
    return child.wait();
}

void walk(const std::vector<long>& numbers, bool as_user) {
    const uint64_t seed = choose_seed();
    const int rounds = choose_rounds();
    const std::string seed_text = "seed: GUEST_FUZZ_SEED=" + std::to_string(seed);
    MESSAGE(doctest::String(seed_text.c_str()));
    TempDir dir;
    Mapping shared(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    auto* record = shared.as<Record>();
    for (const long number : numbers) {
        const std::string own = dir / std::to_string(number);
        REQUIRE_THAT(::mkdir(own.c_str(), 0777), succeeds());
        REQUIRE_THAT(::chmod(own.c_str(), 0777), succeeds());
        Child child([&] {
            torture(number, seed + static_cast<uint64_t>(number), rounds, as_user, own, record);
        });
        const WaitStatus status = end_of(child);
        if (status == exited(kBadAnswer)) {
            std::string text = "call " + std::to_string(record->number) + " answered " +
                               std::to_string(record->result) + " to";
            for (const long a : record->args) {
                text += " " + std::to_string(a);
            }
            FAIL_CHECK(doctest::String(text.c_str()));
        }
        ::chmod(own.c_str(), 0777);
        remove_tree(own);
        if (!still_works(dir)) {
            const std::string text = "the parent is damaged after call " + std::to_string(number);
            FAIL(doctest::String(text.c_str()));
        }
    }
    CHECK(still_works(dir));
}

std::vector<long> every_number() {
    std::vector<long> numbers;
    for (long n = 0; n <= kLastNumber; ++n) {
        numbers.push_back(n);
    }
    for (const long n :
         {471L, 511L, 512L, 547L, 1000L, 0x7000L, 0x3fffffffL, 0x7fffffffL, -1L, -39L}) {
        numbers.push_back(n);
    }
    return numbers;
}

/// MOAT_GUEST=1 set by mistake on a real machine must not hurt it: the kernel has to say its name.
bool kernel_is_moat() {
    utsname name;
    return ::uname(&name) == 0 && std::strstr(name.release, "moat") != nullptr;
}

TEST_CASE("fuzz: calls that concern only the caller answer with Linux's errnos") {
    walk({safe_on_a_machine().begin(), safe_on_a_machine().end()}, true);
}

TEST_CASE("fuzz: every number as an unprivileged user") {
    SKIP_UNLESS(running_in_sentry(), "only in the sentry: natively it could disturb the machine");
    REQUIRE_MESSAGE(kernel_is_moat(), "MOAT_GUEST=1, but uname does not name moat");
    walk(every_number(), true);
}

TEST_CASE("fuzz: every number as root, but for those that would end the tests") {
    SKIP_UNLESS(running_in_sentry(), "only in the sentry: natively it would disturb the machine");
    REQUIRE_MESSAGE(kernel_is_moat(), "MOAT_GUEST=1, but uname does not name moat");
    std::vector<long> numbers;
    for (const long n : every_number()) {
        if (!ends_the_tests(n) && !has_no_answer(n)) {
            numbers.push_back(n);
        }
    }
    walk(numbers, false);
}

TEST_CASE("fuzz: two children torture the same calls at the same time") {
    const uint64_t seed = choose_seed();
    TempDir dir;
    Mapping shared(4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    for (const char* name : {"a", "b"}) {
        REQUIRE_THAT(::mkdir((dir / name).c_str(), 0777), succeeds());
        REQUIRE_THAT(::chmod((dir / name).c_str(), 0777), succeeds());
    }
    for (const long number :
         {SYS_mmap, SYS_munmap, SYS_futex, SYS_dup2, SYS_close, SYS_epoll_ctl}) {
        Child a([&] { torture(number, seed, 200, true, dir / "a", shared.as<Record>()); });
        Child b([&] { torture(number, seed + 1, 200, true, dir / "b", shared.as<Record>(1024)); });
        CHECK(!(end_of(a) == exited(kBadAnswer)));
        CHECK(!(end_of(b) == exited(kBadAnswer)));
    }
    CHECK(still_works(dir));
}

}  // namespace
