// Sessions, controlling terminals and job control (credentials(7), setsid(2), tcsetpgrp(3)).

#include <sys/ioctl.h>

#include "kernel/fs/tty/job_control.h"
#include "kernel/fs/tty/tty.h"
#include "kernel/task/task.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

namespace {

void signal_group(const RefPtr<ProcessGroup>& group, int signal) {
    if (group) {
        (void)send_signal(*group, SignalInfo::from_kernel(signal));  // ESRCH: all have exited
    }
}

}  // namespace

RefPtr<Tty> Tty::controlling(Task& task) {
    const auto session = session_of(task);
    return session ? TaskTable::controlling_tty(*session) : nullptr;
}

RefPtr<ProcessGroup> Tty::foreground_locked() {
    return session_ ? TaskTable::foreground_group(*session_) : nullptr;
}

Status Tty::signal_foreground(int signal) {
    RefPtr<ProcessGroup> group;
    {
        MutexLock lock(mu_);
        group = foreground_locked();
    }
    signal_group(group, signal);
    return {};
}

Status Tty::make_controlling(Task& task, bool steal) {
    const auto session = session_of(task);
    if (!session) {
        return Errno(EPERM);
    }
    const bool leads = leads_session(task);
    MutexLock lock(mu_);
    if (leads && session_ == session) {
        return {};
    }
    if (!leads || TaskTable::controlling_tty(*session) || hung_up_) {
        return Errno(EPERM);
    }
    if (session_) {
        if (!steal) {
            return Errno(EPERM);
        }
        TaskTable::set_controlling_tty(*session_, nullptr);
        TaskTable::set_foreground_group(*session_, nullptr);
    }
    session_ = session;
    TaskTable::set_controlling_tty(*session, RefPtr<Tty>(this));
    TaskTable::set_foreground_group(*session, process_group_of(task));
    return {};
}

void Tty::leader_exited(Session& session) {
    const auto tty = TaskTable::controlling_tty(session);
    const auto group = TaskTable::foreground_group(session);
    if (tty) {
        MutexLock lock(tty->mu_);
        if (tty->session_ == &session) {
            tty->session_.reset();
        }
    }
    TaskTable::set_controlling_tty(session, nullptr);
    TaskTable::set_foreground_group(session, nullptr);
    signal_group(group, SIGHUP);
    if (!tty) {
        // Hung up before: whoever was stopped must be able to die of it (Linux: tty_old_pgrp).
        signal_group(group, SIGCONT);
    }
}

void Tty::hang_up() {
    RefPtr<Session> session;
    std::function<void()> gone;
    {
        MutexLock lock(mu_);
        if (hung_up_) {
            return;
        }
        hung_up_ = true;
        gone = std::exchange(gone_, nullptr);
        session = std::move(session_);
        session_.reset();
        discipline_.flush_input();
        discipline_.flush_output();
        near_events_.notify(EPOLLIN | EPOLLOUT | EPOLLHUP | EPOLLERR | EPOLLRDHUP);
    }
    if (gone) {
        gone();
    }
    if (!session) {
        return;
    }
    // The session keeps its foreground group, for leader_exited() to tell it.
    TaskTable::set_controlling_tty(*session, nullptr);
    if (const auto leader = TaskTable::leader_of(*session)) {
        (void)send_signal(*leader, SignalInfo::from_kernel(SIGHUP));
        (void)send_signal(*leader, SignalInfo::from_kernel(SIGCONT));
    }
}

/// Linux: drivers/tty/tty_jobctrl.c:__tty_check_change.
Status Tty::check_foreground(Task& task, int signal) {
    const auto session = session_of(task);
    if (!session || TaskTable::controlling_tty(*session) != this) {
        return {};
    }
    const auto foreground = TaskTable::foreground_group(*session);
    const auto own = process_group_of(task);
    if (!foreground || !own || foreground == own) {
        return {};
    }
    if (ignores_or_blocks(task, signal)) {
        return signal == SIGTTIN ? Status(Errno(EIO)) : Status();
    }
    if (is_orphaned(*own)) {
        return Errno(EIO);  // nobody could ever continue it
    }
    signal_group(own, signal);
    return kRestartSys;
}

Result<int64_t> Tty::session_ioctl(Task& task, Side side, uint32_t command, uint64_t argument) {
    const auto session = session_of(task);
    const bool is_controlling = session && TaskTable::controlling_tty(*session) == this;
    switch (command) {
        case TIOCSCTTY:
            TRY(make_controlling(task,
                                 argument == 1 && task.has_capability(21 /* CAP_SYS_ADMIN */)));
            return 0;
        case TIOCNOTTY: {
            if (!is_controlling) {
                return Errno(ENOTTY);
            }
            if (!leads_session(task)) {
                // Terminals are the session's here, so one process alone cannot give it up; one
                // that does this goes on to setsid(2) anyhow.
                return Errno(EPERM);
            }
            const auto group = TaskTable::foreground_group(*session);
            leader_exited(*session);
            signal_group(group, SIGCONT);
            return 0;
        }
        case TIOCGPGRP: {
            if (side == Side::kNear && !is_controlling) {
                return Errno(ENOTTY);
            }
            RefPtr<ProcessGroup> group;
            {
                MutexLock lock(mu_);
                group = foreground_locked();
            }
            TRY(task.copy_out(UserPtr<int32_t>(argument), group ? group->id() : 0));
            return 0;
        }
        case TIOCGSID: {
            RefPtr<Session> mine;
            {
                MutexLock lock(mu_);
                mine = session_;
            }
            if ((side == Side::kNear && !is_controlling) || !mine) {
                return Errno(ENOTTY);
            }
            TRY(task.copy_out(UserPtr<int32_t>(argument), mine->id()));
            return 0;
        }
        case TIOCSPGRP: {
            const Status allowed = check_foreground(task, SIGTTOU);
            if (!allowed.ok()) {
                return allowed.error() == EIO ? Errno(ENOTTY) : allowed.error();
            }
            if (!is_controlling) {
                return Errno(ENOTTY);
            }
            const int32_t id = TRY(task.copy_in(UserPtr<const int32_t>(argument)));
            if (id < 0) {
                return Errno(EINVAL);
            }
            const auto group = task.pid_namespace().find_process_group(id);
            if (!group) {
                return Errno(ESRCH);
            }
            if (&group->session() != session.get()) {
                return Errno(EPERM);
            }
            TaskTable::set_foreground_group(*session, group);
            return 0;
        }
        default:
            return Errno(ENOTTY);
    }
}

}  // namespace moat::kernel
