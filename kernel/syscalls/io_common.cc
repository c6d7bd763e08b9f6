#include "kernel/syscalls/io_common.h"

#include <algorithm>

#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"

namespace moat::kernel {

Timeout Timeout::from_ms(int ms) {
    if (ms < 0) {
        return {};
    }
    return relative({ms / 1000, ms % 1000 * 1'000'000});
}

Timeout Timeout::relative(const timespec& t) {
    const int64_t ns = to_ns(t);
    if (ns == 0) {
        return {Deadline::at(0), true};
    }
    return {Deadline::at(add_saturating(monotonic_ns(), ns)), false};
}

Result<Timeout> Timeout::copy_in(Task& task, UserPtr<const timespec> t) {
    if (!t) {
        return Timeout{};
    }
    const timespec wanted = TRY(task.copy_in(t));
    if (!is_valid(wanted)) {
        return Errno(EINVAL);
    }
    return relative(wanted);
}

int64_t Timeout::remaining_ns() const {
    return is_zero ? 0 : std::max<int64_t>(deadline.ns - monotonic_ns(), 0);
}

timespec Timeout::remaining() const { return to_timespec(remaining_ns()); }

}  // namespace moat::kernel
