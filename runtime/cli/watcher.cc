#include "runtime/cli/watcher.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/util/files.h"

namespace moat::runtime::cli {

namespace {

[[noreturn]] void watch(const Watcher::Orders& orders, int pipe) {
    // A session of its own: what is sent to the whole job is not for us. And no descriptor of the
    // caller's: somebody may be waiting for the end of its output.
    ::setsid();
    ::prctl(PR_SET_NAME, "moat-watcher");
    const int null = ::open("/dev/null", O_RDWR);
    if (null < 0 || ::dup2(pipe, 3) < 0) {
        ::_exit(1);
    }
    for (int fd = 0; fd < 3; fd++) {
        ::dup2(null, fd);
    }
    ::syscall(SYS_close_range, 4, ~0u, 0);
    char word;
    ssize_t n;
    do {
        n = ::read(3, &word, 1);
    } while (n < 0 && errno == EINTR);
    if (n == 0) {
        SentryRuntime runtime(orders.options);
        if (orders.keep) {
            (void)runtime.kill(orders.id, SIGKILL);
        } else {
            (void)runtime.remove(orders.id, /*force=*/true);
        }
        if (!orders.scratch.empty()) {
            (void)remove_tree(orders.scratch);
        }
    }
    ::_exit(0);
}

}  // namespace

Result<Watcher> Watcher::start(const Orders& orders) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) {
        return Error::from_errno(errno, "watch over the command: make a pipe");
    }
    const ScopedFd its(ends[0]);
    ScopedFd ours(ends[1]);
    const pid_t pid = ::fork();
    if (pid < 0) {
        return Error::from_errno(errno, "watch over the command: fork");
    }
    if (pid == 0) {
        ours.reset();
        watch(orders, its.get());
    }
    return Watcher(std::move(ours), pid);
}

Watcher::~Watcher() {
    if (pid_ > 0) {
        [[maybe_unused]] const ssize_t n = ::write(pipe_.get(), "", 1);
        while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
        }
    }
}

}  // namespace moat::runtime::cli
