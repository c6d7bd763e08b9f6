#include "kernel/task/task_table.h"

#include <algorithm>

#include "kernel/fs/tty/tty.h"
#include "kernel/task/container.h"
#include "kernel/task/task.h"

namespace moat::kernel {

TaskTableMutex& task_table_mutex() {
    static TaskTableMutex mutex;
    return mutex;
}

// ---------------------------------------------------------------- numbers

int32_t PidNamespace::take_number_locked() {
    for (;;) {
        if (next_ > kMaxPid) {
            next_ = 300;  // Linux: RESERVED_PIDS
        }
        const int32_t number = next_++;
        if (!tasks_.contains(number) && !groups_.contains(number) &&
            !process_groups_.contains(number) && !sessions_.contains(number)) {
            return number;
        }
    }
}

RefPtr<Task> PidNamespace::find_task(int32_t tid) const {
    MutexLock lock(task_table_mutex());
    const auto it = tasks_.find(tid);
    return it == tasks_.end() ? nullptr : RefPtr<Task>(it->second);
}

RefPtr<ThreadGroup> PidNamespace::find_group(int32_t pid) const {
    MutexLock lock(task_table_mutex());
    const auto it = groups_.find(pid);
    return it == groups_.end() ? nullptr : RefPtr<ThreadGroup>(it->second);
}

namespace {

/// Entries are weak: their objects leave the table in their destructors, which wait for our lock.
template <typename T>
RefPtr<T> find_weak(const std::map<int32_t, T*>& table, int32_t id) {
    const auto it = table.find(id);
    return it == table.end() || !it->second->try_ref() ? nullptr : RefPtr<T>::adopt(it->second);
}

}  // namespace

RefPtr<ProcessGroup> PidNamespace::find_process_group(int32_t id) const {
    MutexLock lock(task_table_mutex());
    return find_weak(process_groups_, id);
}

RefPtr<Session> PidNamespace::find_session(int32_t id) const {
    MutexLock lock(task_table_mutex());
    return find_weak(sessions_, id);
}

std::vector<RefPtr<ThreadGroup>> PidNamespace::groups() const {
    MutexLock lock(task_table_mutex());
    std::vector<RefPtr<ThreadGroup>> found;
    for (const auto& [pid, group] : groups_) {
        found.emplace_back(group);
    }
    return found;
}

size_t PidNamespace::task_count() const {
    MutexLock lock(task_table_mutex());
    return tasks_.size();
}

// ---------------------------------------------------------------- groups and sessions

// Process groups and sessions are made and dropped under the table's lock by TaskTable and
// TaskLife; the last reference to one may also go elsewhere, so each leaves the table by itself.
ProcessGroup::ProcessGroup(PidNamespace& pids, int32_t id, RefPtr<Session> session)
    : id_(id), session_(std::move(session)), pids_(&pids) {
    pids.process_groups_[id] = this;
}

ProcessGroup::~ProcessGroup() = default;

void ProcessGroup::last_unref() {
    {
        MutexLock lock(task_table_mutex());
        const auto it = pids_->process_groups_.find(id_);
        if (it != pids_->process_groups_.end() && it->second == this) {
            pids_->process_groups_.erase(it);
        }
    }
    delete this;
}

Session::Session(PidNamespace& pids, int32_t id) : id_(id), pids_(&pids) {
    pids.sessions_[id] = this;
}

Session::~Session() = default;

void Session::last_unref() {
    {
        MutexLock lock(task_table_mutex());
        const auto it = pids_->sessions_.find(id_);
        if (it != pids_->sessions_.end() && it->second == this) {
            pids_->sessions_.erase(it);
        }
    }
    delete this;
}

PidNamespace& ThreadGroup::pid_namespace() const { return container_->pid_namespace(); }

RefPtr<Task> ThreadGroup::leader() const {
    MutexLock lock(task_table_mutex());
    for (const auto& task : tasks_) {
        if (task->tid() == pid_) {
            return task;
        }
    }
    return tasks_.empty() ? nullptr : tasks_.front();
}

RefPtr<Task> ThreadGroup::ended_leader() const {
    MutexLock lock(task_table_mutex());
    return ended_leader_;
}

Session* ThreadGroup::session() const {
    return process_group_ ? &process_group_->session() : nullptr;
}

rlimit ThreadGroup::limit(int resource) const {
    MutexLock lock(limits_mu_);
    return limits_[static_cast<size_t>(resource)];
}

void ThreadGroup::set_limit(int resource, struct rlimit limit) {
    MutexLock lock(limits_mu_);
    limits_[static_cast<size_t>(resource)] = limit;
}

std::vector<RefPtr<Task>> TaskTable::tasks_of(const ThreadGroup& group) {
    MutexLock lock(task_table_mutex());
    return group.tasks_;
}

std::vector<RefPtr<ThreadGroup>> TaskTable::members_of(const ProcessGroup& group) {
    MutexLock lock(task_table_mutex());
    std::vector<RefPtr<ThreadGroup>> members;
    for (ThreadGroup* member : group.members_) {
        members.emplace_back(member);
    }
    return members;
}

std::vector<RefPtr<ThreadGroup>> TaskTable::children_of(const ThreadGroup& group) {
    MutexLock lock(task_table_mutex());
    return {group.children_.begin(), group.children_.end()};
}

int32_t TaskTable::parent_pid(const ThreadGroup& group) {
    MutexLock lock(task_table_mutex());
    const ThreadGroup* parent = group.parent_;
    return parent == nullptr || &parent->pid_namespace() != &group.pid_namespace() ? 0
                                                                                   : parent->pid_;
}

RefPtr<ThreadGroup> TaskTable::parent_of(const ThreadGroup& group) {
    MutexLock lock(task_table_mutex());
    return RefPtr<ThreadGroup>(group.parent_);
}

RefPtr<ProcessGroup> TaskTable::process_group_of(const ThreadGroup& group) {
    MutexLock lock(task_table_mutex());
    return group.process_group_;
}

RefPtr<Session> TaskTable::session_of(const ThreadGroup& group) {
    MutexLock lock(task_table_mutex());
    return RefPtr<Session>(group.session());
}

void TaskTable::join_process_group_locked(ThreadGroup& group, RefPtr<ProcessGroup> target) {
    if (group.process_group_) {
        std::erase(group.process_group_->members_, &group);
    }
    target->members_.push_back(&group);
    group.process_group_ = std::move(target);
}

void TaskTable::leave_process_group_locked(ThreadGroup& group) {
    if (group.process_group_) {
        std::erase(group.process_group_->members_, &group);
    }
}

bool TaskTable::is_orphaned_locked(const ProcessGroup& group, const ThreadGroup* ignoring) {
    for (const ThreadGroup* member : group.members_) {
        if (member == ignoring || member->state() >= ThreadGroup::State::kZombie ||
            member->parent_ == nullptr) {
            continue;
        }
        const ProcessGroup* parents = member->parent_->process_group_.get();
        if (parents != nullptr && parents != &group && &parents->session() == &group.session() &&
            member->parent_ != ignoring) {
            return false;
        }
    }
    return true;
}

Result<int32_t> TaskTable::set_session(Task& task) {
    ThreadGroup& group = task.group();
    RefPtr<ProcessGroup> old;  // dropped after the lock
    MutexLock lock(task_table_mutex());
    PidNamespace& pids = group.pid_namespace();
    if (pids.process_groups_.contains(group.pid_)) {
        return Errno(EPERM);
    }
    auto session = make_ref<Session>(pids, group.pid_);
    auto process_group = make_ref<ProcessGroup>(pids, group.pid_, std::move(session));
    old = group.process_group_;
    join_process_group_locked(group, std::move(process_group));
    const int32_t pid = group.pid_;
    lock.unlock();
    return pid;
}

Status TaskTable::set_process_group(Task& task, int32_t pid, int32_t pgid) {
    ThreadGroup& self = task.group();
    if (pgid < 0) {
        return Errno(EINVAL);
    }
    RefPtr<ProcessGroup> old;
    RefPtr<ProcessGroup> target;
    RefPtr<ThreadGroup> group;
    MutexLock lock(task_table_mutex());
    PidNamespace& pids = self.pid_namespace();
    if (pid == 0) {
        group = RefPtr<ThreadGroup>(&self);
    } else {
        const auto it = pids.groups_.find(pid);
        if (it == pids.groups_.end()) {
            return Errno(ESRCH);
        }
        group = RefPtr<ThreadGroup>(it->second);
    }
    if (group != &self) {
        if (group->parent_ != &self) {
            return Errno(ESRCH);
        }
        if (group->session() != self.session()) {
            return Errno(EPERM);
        }
        if (group->has_execed_) {
            return Errno(EACCES);
        }
    }
    if (group->session() == nullptr || group->session()->id() == group->pid_) {
        return Errno(EPERM);  // a session leader stays
    }
    const int32_t id = pgid == 0 ? group->pid_ : pgid;
    old = group->process_group_;
    if (id == group->pid_ && !pids.process_groups_.contains(id)) {
        target = make_ref<ProcessGroup>(pids, id, RefPtr<Session>(group->session()));
    } else {
        target = find_weak(pids.process_groups_, id);
        if (!target || target->members_.empty()) {
            if (id != group->pid_) {
                return Errno(EPERM);
            }
        } else if (&target->session() != group->session()) {
            return Errno(EPERM);
        }
        if (!target) {
            return Errno(EPERM);
        }
    }
    if (old != target) {
        join_process_group_locked(*group, target);
    }
    lock.unlock();
    return {};
}

void TaskTable::set_subreaper(ThreadGroup& group, bool subreaper) {
    MutexLock lock(task_table_mutex());
    group.is_subreaper_ = subreaper;
}

bool TaskTable::is_subreaper(const ThreadGroup& group) {
    MutexLock lock(task_table_mutex());
    return group.is_subreaper_;
}

// ---------------------------------------------------------------- terminals

RefPtr<Tty> TaskTable::controlling_tty(Session& session) {
    MutexLock lock(task_table_mutex());
    return session.tty_;
}

void TaskTable::set_controlling_tty(Session& session, RefPtr<Tty> tty) {
    MutexLock lock(task_table_mutex());
    std::swap(session.tty_, tty);
    lock.unlock();
}

RefPtr<ProcessGroup> TaskTable::foreground_group(Session& session) {
    MutexLock lock(task_table_mutex());
    return session.foreground_;
}

void TaskTable::set_foreground_group(Session& session, RefPtr<ProcessGroup> group) {
    MutexLock lock(task_table_mutex());
    std::swap(session.foreground_, group);
    lock.unlock();
}

RefPtr<ThreadGroup> TaskTable::leader_of(Session& session) {
    MutexLock lock(task_table_mutex());
    const auto it = session.pids_->groups_.find(session.id());
    if (it == session.pids_->groups_.end() || it->second->state() >= ThreadGroup::State::kZombie) {
        return nullptr;
    }
    return RefPtr<ThreadGroup>(it->second);
}

}  // namespace moat::kernel
