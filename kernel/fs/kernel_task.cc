#include "kernel/fs/kernel_task.h"

#include "kernel/fs/fd_table.h"
#include "kernel/mm/address_space.h"
#include "kernel/task/credentials.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

Task& kernel_task() {
    static Task* const task = [] {
        auto who = make_ref<Credentials>();
        who->permitted = who->effective = who->bounding = ~0ull;
        auto made = make_ref<Task>(make_ref<ThreadGroup>(), 0);
        made->set_credentials(who);
        return made.leak();
    }();
    return *task;
}

}  // namespace moat::kernel
