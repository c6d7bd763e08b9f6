// The gofer's seccomp filter. openat2's flags are in memory, where a filter cannot look: what may
// be opened is decided by the mount namespace and the capabilities. The filter takes away all that
// is not about files and channels.

#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "fsgofer/server/confine.h"

namespace moat::gofer {

namespace {

/// Newer than Debian 12's libseccomp, which takes a plain number as it is.
constexpr int kFchmodat2 = 452;

constexpr int kAllowed[] = {
    // Channels.
    SCMP_SYS(recvmsg), SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_ctl),  // a new channel joins
    SCMP_SYS(epoll_create1), SCMP_SYS(close),
    // Finding and opening.
    SCMP_SYS(openat2), SCMP_SYS(statx), SCMP_SYS(readlinkat), SCMP_SYS(getdents64),
    SCMP_SYS(lseek),   // directories
    SCMP_SYS(fchdir),  // calls that only take a name: xattrs and connect
    SCMP_SYS(fstatfs),
    // Changing.
    SCMP_SYS(fchown), SCMP_SYS(fchownat), SCMP_SYS(fchmod), kFchmodat2, SCMP_SYS(utimensat),
    SCMP_SYS(ftruncate), SCMP_SYS(mkdirat), SCMP_SYS(mknodat), SCMP_SYS(symlinkat),
    SCMP_SYS(linkat), SCMP_SYS(unlinkat), SCMP_SYS(renameat2), SCMP_SYS(fsync), SCMP_SYS(fdatasync),
    SCMP_SYS(lgetxattr), SCMP_SYS(lsetxattr), SCMP_SYS(llistxattr), SCMP_SYS(lremovexattr),
    SCMP_SYS(connect),  // kConnect, of AF_UNIX sockets only: see socket below
    // malloc.
    SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(madvise),
    // The end, orderly or by abort().
    SCMP_SYS(
        write),  // the last words; every descriptor open for writing is on its way to the sentry
    SCMP_SYS(exit_group), SCMP_SYS(exit), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(restart_syscall), SCMP_SYS(getpid), SCMP_SYS(gettid),
    SCMP_SYS(futex),          // glibc's locks, should they ever be contended
    SCMP_SYS(clock_gettime),  // where the vDSO has to ask
};

int add_rules(scmp_filter_ctx filter) {
    for (const int call : kAllowed) {
        if (const int error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0)) {
            return error;
        }
    }
    const auto allow_if = [&](int call, std::initializer_list<scmp_arg_cmp> conditions) {
        return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call,
                                      static_cast<unsigned>(conditions.size()), conditions.begin());
    };
    int error = 0;
    // Answers never raise SIGPIPE.
    error = error ?: allow_if(SCMP_SYS(sendmsg), {SCMP_A2(SCMP_CMP_EQ, MSG_NOSIGNAL)});
    // kOpenChannel.
    error = error
                ?: allow_if(SCMP_SYS(socketpair),
                            {SCMP_A0(SCMP_CMP_EQ, AF_UNIX),
                             SCMP_A1(SCMP_CMP_EQ, SOCK_SEQPACKET | SOCK_CLOEXEC)});
    // kConnect.
    error = error ?: allow_if(SCMP_SYS(socket), {SCMP_A0(SCMP_CMP_EQ, AF_UNIX)});
    // Donated fifos and devices lose our O_NONBLOCK.
    error = error ?: allow_if(SCMP_SYS(fcntl), {SCMP_A1(SCMP_CMP_EQ, F_GETFL)});
    error = error ?: allow_if(SCMP_SYS(fcntl), {SCMP_A1(SCMP_CMP_EQ, F_SETFL)});
    // malloc: memory, but never code.
    error = error
                ?: allow_if(SCMP_SYS(mmap),
                            {SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
                             SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS)});
    error = error ?: allow_if(SCMP_SYS(mremap), {SCMP_A3(SCMP_CMP_EQ, MREMAP_MAYMOVE)});
    error = error ?: allow_if(SCMP_SYS(mprotect), {SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)});
    // abort() signals its own thread; pid 1 of a namespace of our own has nobody else to signal.
    error = error ?: allow_if(SCMP_SYS(tgkill), {SCMP_A2(SCMP_CMP_EQ, 6)});
    return error;
}

}  // namespace

SetupResult<> install_filter() {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (filter == nullptr) {
        return SetupError::from_errno(ENOMEM, "make the seccomp filter");
    }
    // A binary tree instead of a list: the filter runs at every call.
    int error = -seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (error == 0) {
        error = -add_rules(filter);
    }
    if (error == 0) {
        error = -seccomp_load(filter);
    }
    seccomp_release(filter);
    if (error != 0) {
        return SetupError::from_errno(error, "install the seccomp filter");
    }
    return {};
}

}  // namespace moat::gofer
