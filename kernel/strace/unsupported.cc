#include <string.h>

#include <mutex>

#include "kernel/base/log.h"
#include "kernel/base/mutex.h"
#include "kernel/strace/strace.h"
#include "kernel/syscalls/syscall.h"

namespace moat::kernel {

namespace {

/// Names are the table's and the handlers' own literals, so there are only so many.
struct Counts {
    Mutex<LockRank::kCounters> mu;
    std::map<std::string, uint64_t> by_name GUARDED_BY(mu);
};
Counts& counts() {
    static Counts* const instance = new Counts;
    return *instance;
}

}  // namespace

Errno unsupported(const char* what, int error) {
    bool first;
    {
        Counts& all = counts();
        MutexLock lock(all.mu);
        first = all.by_name[what]++ == 0;
    }
    if (first) {
        LOG(kWarning, "syscalls", "unsupported: %s (answered with %s)", what,
            strerrorname_np(error) != nullptr ? strerrorname_np(error) : "an errno");
    }
    return Errno(error);
}

std::map<std::string, uint64_t> unsupported_counts() {
    Counts& all = counts();
    MutexLock lock(all.mu);
    return all.by_name;
}

}  // namespace moat::kernel
