// Bad pointers at every out-pointer, wild lengths and wrong flags, by table: each call must answer
// with the named errno and must not have touched anything.

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <climits>
#include <cstdint>
#include <string>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

struct Row {
    const char* what;
    long number;
    std::vector<long> args;
    int error;
};

/// Kinds of addresses that no call may read or write through.
struct BadAddress {
    const char* name;
    long value;
};
const std::vector<BadAddress>& bad_addresses() {
    static const std::vector<BadAddress> all{
        {"a page without access", reinterpret_cast<long>(bad_pointer())},
        {"address 1", 1},
        {"the kernel's half", reinterpret_cast<long>(kernel_pointer())},
        {"the last byte", -1},
        {"not canonical", 0x0000'8000'0000'0000L},
    };
    return all;
}

constexpr long kBad = 0x5bad5bad5badL;  // stands for each of the bad addresses

long call(const Row& row, long bad_value) {
    long a[6] = {};
    for (size_t i = 0; i < row.args.size(); ++i) {
        a[i] = row.args[i] == kBad ? bad_value : row.args[i];
    }
    return ::syscall(row.number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

void run(const std::vector<Row>& rows) {
    for (const Row& row : rows) {
        for (const BadAddress& address : bad_addresses()) {
            CAPTURE(row.what);
            CAPTURE(address.name);
            CHECK_THAT(call(row, address.value), fails_with(row.error));
        }
    }
}

long here(const void* p) { return reinterpret_cast<long>(p); }

TEST_CASE("EFAULT: calls that fill a structure") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "contents"), O_RDWR);
    run({
        {"fstat", SYS_fstat, {fd.get(), kBad}, EFAULT},
        {"uname", SYS_uname, {kBad}, EFAULT},
        {"sysinfo", SYS_sysinfo, {kBad}, EFAULT},
        {"times", SYS_times, {kBad}, EFAULT},
        {"getrusage", SYS_getrusage, {0, kBad}, EFAULT},
        {"getrlimit", SYS_getrlimit, {7, kBad}, EFAULT},
        {"clock_gettime", SYS_clock_gettime, {0, kBad}, EFAULT},
        {"clock_getres", SYS_clock_getres, {0, kBad}, EFAULT},
        {"getitimer", SYS_getitimer, {0, kBad}, EFAULT},
        {"getresuid", SYS_getresuid, {kBad, kBad, kBad}, EFAULT},
        {"getresgid", SYS_getresgid, {kBad, kBad, kBad}, EFAULT},
        {"fstatfs", SYS_fstatfs, {fd.get(), kBad}, EFAULT},
        {"sched_getaffinity", SYS_sched_getaffinity, {0, 128, kBad}, EFAULT},
        {"rt_sigpending", SYS_rt_sigpending, {kBad, 8}, EFAULT},
        {"prlimit64", SYS_prlimit64, {0, 7, 0, kBad}, EFAULT},
        {"pipe2", SYS_pipe2, {kBad, 0}, EFAULT},
        {"socketpair", SYS_socketpair, {AF_UNIX, SOCK_STREAM, 0, kBad}, EFAULT},
        {"sched_rr_get_interval", SYS_sched_rr_get_interval, {0, kBad}, EFAULT},
        {"sched_getparam", SYS_sched_getparam, {0, kBad}, EFAULT},
    });
}

TEST_CASE("EFAULT: calls that take a path") {
    run({
        {"open", SYS_open, {kBad, O_RDONLY}, EFAULT},
        {"stat", SYS_stat, {kBad, kBad}, EFAULT},
        {"lstat", SYS_lstat, {kBad, kBad}, EFAULT},
        {"access", SYS_access, {kBad, 0}, EFAULT},
        {"chdir", SYS_chdir, {kBad}, EFAULT},
        {"mkdir", SYS_mkdir, {kBad, 0755}, EFAULT},
        {"rmdir", SYS_rmdir, {kBad}, EFAULT},
        {"unlink", SYS_unlink, {kBad}, EFAULT},
        {"symlink", SYS_symlink, {kBad, kBad}, EFAULT},
        {"link", SYS_link, {kBad, kBad}, EFAULT},
        {"rename", SYS_rename, {kBad, kBad}, EFAULT},
        {"readlink", SYS_readlink, {kBad, kBad, 10}, EFAULT},
        {"chmod", SYS_chmod, {kBad, 0644}, EFAULT},
        {"chown", SYS_chown, {kBad, 0, 0}, EFAULT},
        {"truncate", SYS_truncate, {kBad, 0}, EFAULT},
        {"statfs", SYS_statfs, {kBad, kBad}, EFAULT},
        {"mknod", SYS_mknod, {kBad, S_IFREG, 0}, EFAULT},
        {"utimensat", SYS_utimensat, {AT_FDCWD, kBad, 0, 0}, EFAULT},
        {"statx", SYS_statx, {AT_FDCWD, kBad, 0, 0, kBad}, EFAULT},
        {"execve", SYS_execve, {kBad, 0, 0}, EFAULT},
        {"getxattr", SYS_getxattr, {kBad, kBad, 0, 0}, EFAULT},
        {"memfd_create", SYS_memfd_create, {kBad, 0}, EFAULT},
    });
}

TEST_CASE("EFAULT: calls that read or write bytes") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "contents"), O_RDWR);
    Pipe pipe;
    REQUIRE(write_all(pipe.write_end.get(), "in the pipe"));
    SocketPair pair(SOCK_STREAM);
    REQUIRE(write_all(pair.a.get(), "in the socket"));
    const FileDescriptor zero = open_file("/dev/zero", O_RDONLY);
    const FileDescriptor directory = open_file(dir.path(), O_RDONLY);
    run({
        {"read file", SYS_read, {fd.get(), kBad, 4}, EFAULT},
        {"pread file", SYS_pread64, {fd.get(), kBad, 4, 0}, EFAULT},
        {"write file", SYS_write, {fd.get(), kBad, 4}, EFAULT},
        {"read pipe", SYS_read, {pipe.read_end.get(), kBad, 4}, EFAULT},
        {"write pipe", SYS_write, {pipe.write_end.get(), kBad, 4}, EFAULT},
        {"recv socket", SYS_recvfrom, {pair.b.get(), kBad, 4, 0, 0, 0}, EFAULT},
        {"send socket", SYS_sendto, {pair.b.get(), kBad, 4, 0, 0, 0}, EFAULT},
        {"read device", SYS_read, {zero.get(), kBad, 4}, EFAULT},
        {"readv", SYS_readv, {fd.get(), kBad, 1}, EFAULT},
        {"writev", SYS_writev, {fd.get(), kBad, 1}, EFAULT},
        {"sendmsg", SYS_sendmsg, {pair.a.get(), kBad, 0}, EFAULT},
        {"recvmsg", SYS_recvmsg, {pair.a.get(), kBad, 0}, EFAULT},
        {"getdents64", SYS_getdents64, {directory.get(), kBad, 1024}, EFAULT},
        {"getrandom", SYS_getrandom, {kBad, 8, 0}, EFAULT},
    });
    // Nothing was eaten by the failures.
    CHECK(read_exactly(pipe.read_end.get(), 11) == "in the pipe");
    CHECK(read_exactly(fd.get(), 8) == "contents");
}

TEST_CASE("EFAULT: calls that take a structure") {
    const FileDescriptor socket(::socket(AF_INET, SOCK_STREAM, 0));
    run({
        {"nanosleep", SYS_nanosleep, {kBad, 0}, EFAULT},
        {"rt_sigaction", SYS_rt_sigaction, {SIGUSR1, kBad, 0, 8}, EFAULT},
        {"rt_sigprocmask", SYS_rt_sigprocmask, {SIG_BLOCK, kBad, 0, 8}, EFAULT},
        {"rt_sigsuspend", SYS_rt_sigsuspend, {kBad, 8}, EFAULT},
        {"rt_sigtimedwait", SYS_rt_sigtimedwait, {kBad, 0, 0, 8}, EFAULT},
        {"sigaltstack", SYS_sigaltstack, {kBad, 0}, EFAULT},
        {"setrlimit", SYS_setrlimit, {7, kBad}, EFAULT},
        {"setitimer", SYS_setitimer, {0, kBad, 0}, EFAULT},
        {"poll", SYS_poll, {kBad, 1, 0}, EFAULT},
        {"select", SYS_select, {1, kBad, 0, 0, 0}, EFAULT},
        {"bind", SYS_bind, {socket.get(), kBad, 16}, EFAULT},
        {"connect", SYS_connect, {socket.get(), kBad, 16}, EFAULT},
        {"setsockopt", SYS_setsockopt, {socket.get(), SOL_SOCKET, SO_REUSEADDR, kBad, 4}, EFAULT},
        {"getsockname", SYS_getsockname, {socket.get(), kBad, kBad}, EFAULT},
        {"getsockopt", SYS_getsockopt, {socket.get(), SOL_SOCKET, SO_TYPE, kBad, kBad}, EFAULT},
        {"futex wait", SYS_futex, {kBad & ~3L, 0, 0, 0, 0, 0}, EFAULT},
    });
}

TEST_CASE("EBADF: every call that takes a descriptor") {
    char buffer[256] = {};
    const iovec part{buffer, 1};
    for (const long fd : {-1L, 100'000L, static_cast<long>(INT_MAX), 0x1'0000'03e7L}) {
        CAPTURE(fd);
        CHECK_THAT(::syscall(SYS_read, fd, buffer, 1), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_write, fd, buffer, 1), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_readv, fd, &part, 1), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_pread64, fd, buffer, 1, 0), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_close, fd), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_fstat, fd, buffer), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_lseek, fd, 0, 0), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_dup, fd), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_fcntl, fd, F_GETFD), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_ioctl, fd, 0x5401, buffer), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_fsync, fd), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_ftruncate, fd, 0), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_fchmod, fd, 0), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_fchdir, fd), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_getdents64, fd, buffer, 256), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_accept4, fd, 0, 0, 0), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_listen, fd, 1), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, fd, 0), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_flock, fd, 1), fails_with(EBADF));
        CHECK_THAT(::syscall(SYS_epoll_wait, fd, buffer, 1, 0), fails_with(EBADF));
    }
}

TEST_CASE("lengths: SSIZE_MAX and more are cut or refused, never believed") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "0123456789"), O_RDONLY);
    FencedBuffer buffer(16);
    const auto ten_or_refused = [](ssize_t n) { return n == 10 || (n == -1 && errno == EFAULT); };
    CHECK_THAT(::syscall(SYS_read, fd.get(), buffer.data(), 64 << 20), succeeds_with(10));
    REQUIRE_THAT(::lseek(fd.get(), 0, SEEK_SET), succeeds());
    // Linux refuses a range that leaves user space, and cuts one that does not to 0x7ffff000.
    CHECK(ten_or_refused(::syscall(SYS_read, fd.get(), buffer.data(), SSIZE_MAX)));
    CHECK(buffer.intact());
    CHECK_THAT(::syscall(SYS_read, fd.get(), buffer.data(), ~0UL),
               fails_with_any({EFAULT, EINVAL}));
    CHECK_THAT(::syscall(SYS_getrandom, bad_pointer(), 1UL << 40, 0), fails_with(EFAULT));
    iovec parts[2] = {{buffer.data(), 4}, {buffer.data() + 4, static_cast<size_t>(-1)}};
    CHECK_THAT(::syscall(SYS_readv, fd.get(), parts, 2), fails_with(EINVAL));
    CHECK(buffer.intact());
}

TEST_CASE("wrap-around: ranges that run over the end of the address space") {
    Mapping map(4096);
    const auto base = reinterpret_cast<unsigned long>(map.data());
    CHECK_THAT(::syscall(SYS_munmap, base, -base + 4096), fails_with(EINVAL));
    CHECK_THAT(::syscall(SYS_mprotect, base, -base, PROT_READ), fails_with_any({ENOMEM, EINVAL}));
    CHECK_THAT(::syscall(SYS_madvise, base, -base, MADV_DONTNEED),
               fails_with_any({ENOMEM, EINVAL}));
    CHECK_THAT(::syscall(SYS_msync, base, -base, MS_SYNC), fails_with_any({ENOMEM, EINVAL}));
    CHECK_THAT(::syscall(SYS_mlock, base, -base), fails_with_any({ENOMEM, EINVAL, EPERM}));
    CHECK(readable(map.data()));
}

TEST_CASE("upper halves: ints are the low 32 bits of their registers") {
    TempDir dir;
    const FileDescriptor fd = open_file(dir.file("f", "x"), O_RDONLY);
    char c = 0;
    CHECK_THAT(::syscall(SYS_read, fd.get() | 0x7fff'0000'0000'0000L, &c, 1), succeeds_with(1));
    CHECK_THAT(::syscall(SYS_fcntl, fd.get() | 0x1'0000'0000L, F_GETFD | 0x2'0000'0000L),
               succeeds_with(FD_CLOEXEC));
}

TEST_CASE("a string at the very end of memory is read no further than its zero") {
    TempDir dir;
    const std::string path = dir.file("f");
    FencedBuffer exact(path.size() + 1);
    path.copy(exact.data(), path.size());
    exact.data()[path.size()] = '\0';
    CHECK_THAT(::syscall(SYS_access, exact.data(), F_OK), succeeds());
    FencedBuffer open_end(path.size());
    path.copy(open_end.data(), path.size());
    CHECK_THAT(::syscall(SYS_access, open_end.data(), F_OK), fails_with(EFAULT));
}

TEST_CASE("a buffer that another thread unmaps meanwhile harms only the call") {
    in_child([] {
        Mapping map(64 * 1024);
        std::atomic<bool> stop{false};
        Thread flipper([&] {
            while (!stop) {
                ::mprotect(map.data() + 4096, 4096, PROT_NONE);
                ::mprotect(map.data() + 4096, 4096, PROT_READ | PROT_WRITE);
            }
        });
        const FileDescriptor zero = open_file("/dev/zero", O_RDONLY);
        for (int i = 0; i < 2000; ++i) {
            const ssize_t n = ::read(zero.get(), map.data(), 16 * 1024);
            CHILD_CHECK((n >= 0 && n <= 16 * 1024) || (n == -1 && errno == EFAULT));
        }
        stop = true;
        flipper.join();
    });
    CHECK(here(bad_pointer()) != 0);
}

}  // namespace
