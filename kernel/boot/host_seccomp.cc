#include "kernel/boot/host_seccomp.h"

#include <errno.h>
#include <seccomp.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <initializer_list>

#include "kernel/base/cleanup.h"
#include "kernel/base/log.h"

namespace moat::kernel {

namespace {

// What the sentry needs of the host, by whom. Nothing here opens a path that matters: its root is
// empty but for a /proc of its own pid namespace.
constexpr int kAllowed[] = {
    // C library, threads, memory of the sentry itself
    SYS_brk,
    SYS_mmap,
    SYS_munmap,
    SYS_mprotect,
    SYS_mremap,
    SYS_madvise,
    SYS_clone,
    SYS_clone3,
    SYS_futex,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_exit,
    SYS_exit_group,
    SYS_rt_sigprocmask,
    SYS_rt_sigaction,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_gettid,
    SYS_getpid,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_getrandom,
    SYS_prlimit64,
    SYS_restart_syscall,
    SYS_membarrier,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    // platform: guests' processes and their memory
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pidfd_open,
    SYS_pidfd_getfd,
    SYS_pidfd_send_signal,
    SYS_tgkill,
    SYS_kill,
    SYS_waitid,
    SYS_wait4,
    SYS_memfd_create,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_sched_setaffinity,
    // clocks and timers
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_clock_getres,
    SYS_nanosleep,
    SYS_gettimeofday,
    // donated descriptors: files, pipes, terminals, logs
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_preadv2,
    SYS_pwritev2,
    SYS_lseek,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_fsync,
    SYS_fdatasync,
    SYS_close,
    SYS_close_range,
    SYS_fcntl,
    SYS_dup,
    SYS_dup3,
    SYS_fadvise64,
    SYS_copy_file_range,
    SYS_sendfile,
    SYS_splice,
    SYS_fstatfs,
    SYS_sync_file_range,
    // its own /proc, for guests' maps and statistics
    SYS_openat,
    SYS_open,
    SYS_getdents64,
    SYS_readlink,
    SYS_readlinkat,
    SYS_access,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_stat,
    SYS_lstat,
    // waiting
    SYS_poll,
    SYS_ppoll,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_wait,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_eventfd2,
    SYS_pipe2,
    // control server, gofer, and guests' sockets in network mode host
    SYS_accept4,
    SYS_accept,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_recvfrom,
    SYS_sendto,
    SYS_recvmmsg,
    SYS_sendmmsg,
    SYS_shutdown,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_getsockname,
    SYS_getpeername,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_socketpair,
    // what guests may be told about the machine
    SYS_uname,
    SYS_sysinfo,
    SYS_getrusage,
    SYS_times,
    SYS_getcpu,
};

/// ioctl(2)'s commands, by number: the listener's, terminals', sockets' and maps' own.
constexpr unsigned long kIoctls[] = {
    0xc0502100ul,                      // SECCOMP_IOCTL_NOTIF_RECV
    0xc0182101ul,                      // SECCOMP_IOCTL_NOTIF_SEND
    0x40082102ul,                      // SECCOMP_IOCTL_NOTIF_ID_VALID
    0x40182103ul,                      // SECCOMP_IOCTL_NOTIF_ADDFD
    0x40082104ul,                      // SECCOMP_IOCTL_NOTIF_SET_FLAGS
    0xc0686611ul,                      // PROCMAP_QUERY
    0x541bul,                          // FIONREAD
    0x5411ul,                          // TIOCOUTQ
    0x5421ul,                          // FIONBIO
    0x5413ul,                          // TIOCGWINSZ
    0x5414ul,                          // TIOCSWINSZ
    0x5401ul,                          // TCGETS
    0x5402ul,     0x5403ul, 0x5404ul,  // TCSETS, TCSETSW, TCSETSF
    0x8905ul,                          // SIOCATMARK
    0x8910ul,     0x8912ul, 0x8913ul, 0x8915ul, 0x8917ul, 0x8919ul, 0x891bul,
    0x891dul,     0x8921ul, 0x8927ul, 0x8933ul, 0x8942ul,  // SIOCGIFNAME, CONF, FLAGS, ADDR,
                                                           // DSTADDR, BRDADDR, NETMASK, METRIC,
                                                           // MTU, HWADDR, INDEX, TXQLEN
};

Status drop_capabilities() {
    // Empty already when the runtime started us as another user; said again, for whoever starts us.
    cap_t none = ::cap_init();
    if (none == nullptr) {
        return Errno(errno);
    }
    const int result = ::cap_set_proc(none);
    const int error = errno;
    ::cap_free(none);
    return result == 0 ? Status() : Status(Errno(error));
}

}  // namespace

Status drop_privileges() {
    TRY(drop_capabilities());
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return Errno(errno);
    }
    return {};
}

Status install_sentry_filter() {
    scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (filter == nullptr) {
        return Errno(ENOMEM);
    }
    auto release = Cleanup([&] { ::seccomp_release(filter); });
    const auto check = [](int result) -> Status {
        return result == 0 ? Status() : Status(Errno(-result));
    };
    TRY(check(::seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1)));
    // A binary tree over the numbers: the sentry makes three calls for each of its guest's.
    TRY(check(::seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2)));
    for (const int call : kAllowed) {
        TRY(check(::seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0)));
    }
    for (const unsigned long command : kIoctls) {
        TRY(check(::seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                                     SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff, command))));
    }
    // Names of threads, and the answer to "may I be traced".
    for (const int option : {PR_SET_NAME, PR_GET_DUMPABLE}) {
        TRY(check(::seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                                     SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(option)))));
    }
    // Sockets of guests: inet, ping by datagram, and read-only route netlink.
    for (const int family : {AF_INET, AF_INET6, AF_NETLINK}) {
        TRY(check(::seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                                     SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(family)))));
    }
    TRY(check(::seccomp_load(filter)));
    return {};
}

}  // namespace moat::kernel
