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

uint8_t seen_by_seccomp(const Task& task) {
    if (task.seccomp_mode() == SECCOMP_MODE_DISABLED) {
        return platform::kNoDirectCalls;
    }
    const SeccompFilter* filter = task.seccomp_filter();
    if (filter == nullptr) {
        return platform::kAllDirectCalls;  // strict mode
    }
    const auto always = [&](uint32_t number) { return filter->always_allows(number); };
    uint8_t groups = platform::kNoDirectCalls;
    if (!std::all_of(std::begin(platform::kMemoryCallNumbers),
                     std::end(platform::kMemoryCallNumbers), always)) {
        groups |= platform::kMemoryCalls;
    }
    if (!always(SYS_futex)) {
        groups |= platform::kFutexCalls;
    }
    return groups;
}

}  // namespace

uint8_t calls_to_be_seen(const Task& task) {
    if (strace_enabled()) {
        return platform::kAllDirectCalls;
    }
    const bool limited =
        task.rlimit(RLIMIT_AS) != RLIM_INFINITY || task.rlimit(RLIMIT_DATA) != RLIM_INFINITY;
    return seen_by_seccomp(task) | (limited ? platform::kMemoryCalls : platform::kNoDirectCalls);
}

void end_direct_calls(AddressSpace& mm, uint8_t groups) {
    if ((mm.process().direct_calls() & groups) == 0) {
        return;
    }
    mm.process().end_direct_calls(groups);
    for (const auto& group : AddressSpace::users_of(mm.process())) {
        for (const auto& task : TaskTable::tasks_of(*group)) {
            TaskRunner::call_in_for_direct_calls(*task);
        }
    }
}

void review_direct_calls(Task& task) {
    if (const RefPtr<AddressSpace> mm = task.mm_ref()) {
        end_direct_calls(*mm, calls_to_be_seen(task));
    }
}

}  // namespace moat::kernel
