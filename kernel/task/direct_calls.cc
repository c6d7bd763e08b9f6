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

bool seccomp_allows_directly(const Task& task) {
    if (task.seccomp_mode() == SECCOMP_MODE_DISABLED) {
        return true;
    }
    const SeccompFilter* filter = task.seccomp_filter();
    return filter != nullptr &&
           std::all_of(std::begin(platform::kDirectCalls), std::end(platform::kDirectCalls),
                       [&](uint32_t number) { return filter->always_allows(number); });
}

}  // namespace

bool may_call_directly(const Task& task) {
    return !strace_enabled() && task.rlimit(RLIMIT_AS) == RLIM_INFINITY &&
           seccomp_allows_directly(task);
}

void end_direct_calls(AddressSpace& mm) {
    mm.end_direct_calls();
    for (const auto& group : AddressSpace::users_of(mm.process())) {
        for (const auto& task : TaskTable::tasks_of(*group)) {
            TaskRunner::end_direct_calls(*task);
        }
    }
}

void review_direct_calls(Task& task) {
    const RefPtr<AddressSpace> mm = task.mm_ref();
    if (mm && mm->direct_calls() && !may_call_directly(task)) {
        end_direct_calls(*mm);
    }
}

}  // namespace moat::kernel
