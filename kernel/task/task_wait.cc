// wait4(2), waitid(2).

#include <sys/wait.h>

#include "kernel/task/task_life.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

namespace {

constexpr int kWaitClone = static_cast<int>(0x80000000);  // __WCLONE
constexpr int kWaitAll = 0x40000000;                      // __WALL
constexpr int kWaitNoThread = 0x20000000;                 // __WNOTHREAD

}  // namespace

// One look at the children. ECHILD: none that fits; EAGAIN: none of them has anything to report.
Result<WaitResult> TaskLife::look_for_child(Task& task, int idtype, int32_t id, int options) {
    ThreadGroup& group = task.group();
    RefPtr<ThreadGroup> to_reap;
    WaitResult result;
    {
        MutexLock lock(task_table_mutex());
        bool any = false;
        for (const RefPtr<ThreadGroup>& child : group.children_) {
            const int32_t child_group = child->process_group_ ? child->process_group_->id() : 0;
            if ((idtype == P_PID && child->pid_ != id) || (idtype == P_PGID && child_group != id)) {
                continue;
            }
            if ((options & kWaitNoThread) != 0 && child->parent_tid_ != task.tid()) {
                continue;
            }
            const bool is_clone = child->exit_signal_ != SIGCHLD;
            if ((options & kWaitAll) == 0 && is_clone != ((options & kWaitClone) != 0)) {
                continue;
            }
            any = true;
            result.pid = child->pid_;
            result.cpu_ns = child->cpu_ns_;
            if (child->state() == ThreadGroup::State::kZombie && (options & WEXITED) != 0) {
                result.wait_status = child->wait_status_;
                const int status = child->wait_status_;
                result.code = WIFEXITED(status)   ? CLD_EXITED
                              : WCOREDUMP(status) ? CLD_DUMPED
                                                  : CLD_KILLED;
                result.status = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
                if ((options & WNOWAIT) == 0) {
                    to_reap = child;
                }
                break;
            }
            MutexLock signals(child->signal_mu_);
            if (child->stop_report_ != 0 && (options & WSTOPPED) != 0) {
                result.code = CLD_STOPPED;
                result.status = child->stop_report_;
                result.wait_status = child->stop_report_ << 8 | 0x7f;
                if ((options & WNOWAIT) == 0) {
                    child->stop_report_ = 0;
                }
                break;
            }
            if (child->continue_report_ && (options & WCONTINUED) != 0) {
                result.code = CLD_CONTINUED;
                result.status = SIGCONT;
                result.wait_status = 0xffff;
                if ((options & WNOWAIT) == 0) {
                    child->continue_report_ = false;
                }
                break;
            }
            result = WaitResult();
        }
        if (result.code == 0) {
            return Errno(any ? EAGAIN : ECHILD);
        }
    }
    if (to_reap) {
        reap(*to_reap);
    }
    return result;
}

Result<int64_t> TaskLife::wait(Task& task, int idtype, int32_t id, int options,
                               std::function<Result<int64_t>(Task&, const WaitResult&)> report) {
    if (idtype == P_PGID && id == 0) {
        const RefPtr<ProcessGroup> own = TaskTable::process_group_of(task.group());
        id = own ? own->id() : 0;
    }
    RefPtr<ThreadGroup> group(&task.group());
    const auto attempt = [=](Task& t) -> Result<int64_t> {
        return report(t, TRY(look_for_child(t, idtype, id, options)));
    };
    const Result<int64_t> first = attempt(task);
    if (first.ok() || !(first.error() == EAGAIN)) {
        return first;
    }
    if ((options & WNOHANG) != 0) {
        return report(task, WaitResult());
    }
    return block(task, {{&group->child_events_, EPOLLIN}}, Deadline::never(),
                 [attempt](Task& t, Wake wake) -> Result<int64_t> {
                     const Result<int64_t> again = attempt(t);
                     if (again.ok() || !(again.error() == EAGAIN)) {
                         return again;
                     }
                     return wake == Wake::kInterrupted ? kRestartSys : kBlocked;
                 });
}

}  // namespace moat::kernel
