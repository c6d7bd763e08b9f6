#include "kernel/fs/tty/job_control.h"

#include "kernel/task/task.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

RefPtr<Session> session_of(Task& task) { return TaskTable::session_of(task.group()); }

RefPtr<ProcessGroup> process_group_of(Task& task) {
    return TaskTable::process_group_of(task.group());
}

bool leads_session(Task& task) {
    const auto session = session_of(task);
    return session && session->id() == task.group().pid();
}

bool is_orphaned(ProcessGroup& group) {
    MutexLock lock(task_table_mutex());
    return TaskTable::is_orphaned_locked(group, nullptr);
}

bool ignores_or_blocks(Task& task, int signal) {
    return (task.signal_mask() & signal_bit(signal)) != 0 ||
           task.group().action(signal).handler == 1;  // SIG_IGN
}

}  // namespace moat::kernel
