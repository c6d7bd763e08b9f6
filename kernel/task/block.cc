#include "kernel/task/block.h"

#include "kernel/time/clock.h"

namespace moat::kernel {

Deadline Deadline::after(int64_t relative_ns) {
    int64_t ns;
    if (__builtin_add_overflow(monotonic_ns(), relative_ns, &ns)) {
        return never();
    }
    return at(ns);
}

}  // namespace moat::kernel
