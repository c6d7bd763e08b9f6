#include "kernel/task/direct_calls.h"

#include <linux/seccomp.h>
#include <sys/resource.h>

#include <algorithm>
#include <iterator>

#include "kernel/platform/filter.h"
#include "kernel/strace/strace.h"
#include "kernel/task/seccomp_filter.h"
#include "kernel/task/task_run.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

namespace {

uint8_t allowed_by_seccomp(const Task& task) {
    if (task.seccomp_mode() == SECCOMP_MODE_DISABLED) {
        return platform::kAllDirectCalls;
    }
    const SeccompFilter* filter = task.seccomp_filter();
    if (filter == nullptr) {
        return platform::kNoDirectCalls;  // strict mode
    }
    const auto always = [&](uint32_t number) { return filter->always_allows(number); };
    uint8_t groups = platform::kNoDirectCalls;
    if (std::all_of(std::begin(platform::kMemoryCallNumbers),
                    std::end(platform::kMemoryCallNumbers), always)) {
        groups |= platform::kMemoryCalls;
    }
    if (always(SYS_futex)) {
        groups |= platform::kFutexCalls;
    }
    return groups;
}

}  // namespace

uint8_t allowed_direct_calls(const Task& task) {
    if (strace_enabled()) {
        return platform::kNoDirectCalls;
    }
    uint8_t groups = allowed_by_seccomp(task);
    if (task.rlimit(RLIMIT_AS) != RLIM_INFINITY || task.rlimit(RLIMIT_DATA) != RLIM_INFINITY) {
        groups &= static_cast<uint8_t>(~platform::kMemoryCalls);
    }
    return groups;
}

void end_direct_calls(AddressSpace& mm, uint8_t groups) {
    if ((mm.direct_calls() & groups) == 0) {
        return;
    }
    mm.end_direct_calls(groups);
    for (const auto& group : AddressSpace::users_of(mm.process())) {
        for (const auto& task : TaskTable::tasks_of(*group)) {
            TaskRunner::end_direct_calls(*task, groups);
        }
    }
}

void review_direct_calls(Task& task) {
    if (const RefPtr<AddressSpace> mm = task.mm_ref()) {
        end_direct_calls(*mm, static_cast<uint8_t>(~allowed_direct_calls(task)));
    }
}

}  // namespace moat::kernel
