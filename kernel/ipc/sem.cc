#include "kernel/ipc/sem.h"

#include <algorithm>

#include "kernel/fs/synthetic/synthetic.h"
#include "kernel/task/block.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

namespace {

constexpr int32_t kMostUndo = 32767;  // SEMAEM

bool changes_values(const std::vector<sembuf>& operations) {
    return std::any_of(operations.begin(), operations.end(),
                       [](const sembuf& op) { return op.sem_op != 0; });
}

}  // namespace

SemSet::~SemSet() { release_ipc_memory(charged); }

SemTable::~SemTable() {
    MutexLock lock(mu_);
    for (const auto& [group, list] : undo_) {
        for (const auto& [id, amounts] : list) {
            release_ipc_memory(amounts.size() * sizeof(int16_t));
        }
    }
}

Result<int32_t> SemTable::create_locked(Task& task, int32_t key, size_t count, uint32_t flags) {
    if (count == 0) {
        return Errno(EINVAL);
    }
    if (total_ + count > limits_.total || sets_.count() >= limits_.sets) {
        return Errno(ENOSPC);
    }
    const size_t bytes = sizeof(SemSet) + count * sizeof(SemSet::Semaphore);
    TRY(charge_ipc_memory(bytes));
    auto set = make_ref<SemSet>();
    set->charged = bytes;
    set->permissions = IpcPermissions::of_creator(key, flags, *task.credentials());
    set->semaphores.resize(count);
    set->changed_at = ipc_now();
    total_ += count;
    sets_.insert(set);
    return set->id;
}

Result<int32_t> SemTable::get(Task& task, int32_t key, int32_t count, uint32_t flags) {
    if (count < 0 || static_cast<uint64_t>(count) > limits_.per_set) {
        return Errno(EINVAL);
    }
    const auto wanted = static_cast<size_t>(count);
    MutexLock lock(mu_);
    return sets_.get(
        *task.credentials(), key, flags,
        [wanted](const SemSet& set) {
            return set.semaphores.size() < wanted ? Status(Errno(EINVAL)) : Status();
        },
        [&]() NO_THREAD_SAFETY_ANALYSIS { return create_locked(task, key, wanted, flags); });
}

// ---------------------------------------------------------------- operations

Result<std::vector<int16_t>*> SemTable::undo_of_locked(const ThreadGroup& group,
                                                       const SemSet& set) {
    std::vector<int16_t>& amounts = undo_[&group][set.id];
    if (amounts.empty()) {
        const Status charged = charge_ipc_memory(set.semaphores.size() * sizeof(int16_t));
        if (!charged.ok()) {
            undo_[&group].erase(set.id);
            return charged.error();
        }
        amounts.resize(set.semaphores.size());
        has_undo_.store(true, std::memory_order_relaxed);
    }
    return &amounts;
}

// All of the operations or none, in their order (Linux: perform_atomic_semop_slow()).
Result<SemTable::Outcome> SemTable::perform_locked(SemSet& set,
                                                   const std::vector<sembuf>& operations,
                                                   const IpcActor& who, const ThreadGroup& group,
                                                   size_t* blocking) {
    const bool undoes = std::any_of(operations.begin(), operations.end(),
                                    [](const sembuf& op) { return (op.sem_flg & SEM_UNDO) != 0; });
    std::vector<int16_t>* const undo = undoes ? TRY(undo_of_locked(group, set)) : nullptr;
    size_t done = 0;
    Result<Outcome> outcome = Outcome::kDone;
    for (; done < operations.size(); done++) {
        const sembuf& op = operations[done];
        int32_t& value = set.semaphores[op.sem_num].value;
        const int32_t next = value + op.sem_op;
        if ((op.sem_op == 0 && value != 0) || next < 0) {
            *blocking = done;
            outcome = (op.sem_flg & IPC_NOWAIT) != 0 ? Result<Outcome>(Errno(EAGAIN))
                                                     : Result<Outcome>(Outcome::kMustWait);
            break;
        }
        if (next > kMostValue) {
            outcome = Errno(ERANGE);
            break;
        }
        if ((op.sem_flg & SEM_UNDO) != 0) {
            const int32_t amount = (*undo)[op.sem_num] - op.sem_op;
            if (amount < -kMostUndo - 1 || amount > kMostUndo) {
                outcome = Errno(ERANGE);
                break;
            }
            (*undo)[op.sem_num] = static_cast<int16_t>(amount);
        }
        value = next;
    }
    if (outcome.ok() && *outcome == Outcome::kDone) {
        for (const sembuf& op : operations) {
            set.semaphores[op.sem_num].last = who;
        }
        set.operated_at = ipc_now();
        return outcome;
    }
    while (done > 0) {
        const sembuf& op = operations[--done];
        set.semaphores[op.sem_num].value -= op.sem_op;
        if ((op.sem_flg & SEM_UNDO) != 0) {
            (*undo)[op.sem_num] = static_cast<int16_t>((*undo)[op.sem_num] + op.sem_op);
        }
    }
    return outcome;
}

void SemTable::update_locked(SemSet& set) {
    for (bool again = true; again;) {
        again = false;
        for (auto it = set.waiters.begin(); it != set.waiters.end();) {
            const RefPtr<SemWaiter> waiter = *it;
            const auto outcome = perform_locked(set, waiter->operations, waiter->actor,
                                                waiter->task->group(), &waiter->blocking);
            if (outcome.ok() && *outcome == Outcome::kMustWait) {
                ++it;
                continue;
            }
            it = set.waiters.erase(it);
            waiter->finish(outcome.ok() ? Status() : Status(outcome.error()));
            if (outcome.ok() && changes_values(waiter->operations)) {
                again = true;  // others before it may be possible now
                break;
            }
        }
    }
}

Result<int64_t> SemTable::operate(Task& task, int32_t id, std::vector<sembuf> operations,
                                  Deadline deadline) {
    RefPtr<SemWaiter> waiter;
    RefPtr<SemSet> set;
    {
        MutexLock lock(mu_);
        set = TRY(sets_.find(id));
        for (const sembuf& op : operations) {
            if (op.sem_num >= set->semaphores.size()) {
                return Errno(EFBIG);
            }
        }
        const bool alters = changes_values(operations);
        TRY(set->permissions.check(*task.credentials(), alters ? 0222 : 0444));
        size_t blocking = 0;
        const Outcome outcome =
            TRY(perform_locked(*set, operations, IpcActor::of(task), task.group(), &blocking));
        if (outcome == Outcome::kDone) {
            if (alters) {
                update_locked(*set);
            }
            return 0;
        }
        waiter = make_ref<SemWaiter>(task, std::move(operations));
        waiter->blocking = blocking;
        set->waiters.push_back(waiter);
    }
    return block(task, {}, deadline, [this, waiter, set](Task&, Wake wake) -> Result<int64_t> {
        MutexLock lock(mu_);
        if (waiter->done) {
            TRY(waiter->result);
            return 0;
        }
        if (wake == Wake::kReady) {
            return kBlocked;
        }
        set->waiters.remove(waiter);
        // semop(2): never restarted, whatever SA_RESTART says.
        return Errno(wake == Wake::kTimeout ? EAGAIN : EINTR);
    });
}

// ---------------------------------------------------------------- control

Result<SemTable::Status64> SemTable::stat(Task& task, int32_t number, By by) {
    MutexLock lock(mu_);
    const RefPtr<SemSet> set = by == By::kId ? TRY(sets_.find(number)) : sets_.at(number);
    if (!set) {
        return Errno(EINVAL);
    }
    if (by != By::kIndexAny) {
        TRY(set->permissions.check(*task.credentials(), 0444));
    }
    Status64 status{};
    status.id = set->id;
    status.ds.sem_perm = set->permissions.to_user(set->id);
    status.ds.sem_otime = set->operated_at;
    status.ds.sem_ctime = set->changed_at;
    status.ds.sem_nsems = set->semaphores.size();
    return status;
}

Status SemTable::set(Task& task, int32_t id, const semid_ds& wanted) {
    MutexLock lock(mu_);
    const RefPtr<SemSet> set = TRY(sets_.find(id));
    const auto who = task.credentials();
    TRY(set->permissions.check_owner(*who));
    TRY(set->permissions.change(*who, wanted.sem_perm));
    set->changed_at = ipc_now();
    return {};
}

void SemTable::destroy_locked(SemSet& set) {
    for (auto it = undo_.begin(); it != undo_.end();) {
        if (const auto amounts = it->second.find(set.id); amounts != it->second.end()) {
            release_ipc_memory(amounts->second.size() * sizeof(int16_t));
            it->second.erase(amounts);
        }
        it = it->second.empty() ? undo_.erase(it) : std::next(it);
    }
    for (const auto& waiter : set.waiters) {
        waiter->finish(Errno(EIDRM));
    }
    set.waiters.clear();
    total_ -= set.semaphores.size();
    sets_.remove(set);
}

Status SemTable::remove(Task& task, int32_t id) {
    RefPtr<SemSet> set;  // dropped without the lock
    MutexLock lock(mu_);
    set = TRY(sets_.find(id));
    TRY(set->permissions.check_owner(*task.credentials()));
    destroy_locked(*set);
    lock.unlock();
    return {};
}

Result<std::vector<uint16_t>> SemTable::values(Task& task, int32_t id) {
    MutexLock lock(mu_);
    const RefPtr<SemSet> set = TRY(sets_.find(id));
    TRY(set->permissions.check(*task.credentials(), 0444));
    std::vector<uint16_t> values;
    for (const auto& semaphore : set->semaphores) {
        values.push_back(static_cast<uint16_t>(semaphore.value));
    }
    return values;
}

Result<size_t> SemTable::size(Task& task, int32_t id, uint32_t wanted) {
    MutexLock lock(mu_);
    const RefPtr<SemSet> set = TRY(sets_.find(id));
    TRY(set->permissions.check(*task.credentials(), wanted));
    return set->semaphores.size();
}

void SemTable::forget_undo_locked(const SemSet& set, int32_t number) {
    for (auto& [group, list] : undo_) {
        if (const auto amounts = list.find(set.id); amounts != list.end()) {
            if (number < 0) {
                std::fill(amounts->second.begin(), amounts->second.end(), int16_t{0});
            } else {
                amounts->second[static_cast<size_t>(number)] = 0;
            }
        }
    }
}

Status SemTable::set_values(Task& task, int32_t id, const std::vector<uint16_t>& values) {
    MutexLock lock(mu_);
    const RefPtr<SemSet> set = TRY(sets_.find(id));
    TRY(set->permissions.check(*task.credentials(), 0222));
    if (values.size() != set->semaphores.size()) {
        return Errno(EIDRM);  // another one by now
    }
    for (const uint16_t value : values) {
        if (value > kMostValue) {
            return Errno(ERANGE);
        }
    }
    const IpcActor who = IpcActor::of(task);
    for (size_t i = 0; i < values.size(); i++) {
        set->semaphores[i] = {values[i], who};
    }
    forget_undo_locked(*set, -1);
    set->changed_at = ipc_now();
    update_locked(*set);
    return {};
}

Status SemTable::set_value(Task& task, int32_t id, int32_t number, int32_t value) {
    if (value < 0 || value > kMostValue) {
        return Errno(ERANGE);
    }
    MutexLock lock(mu_);
    const RefPtr<SemSet> set = TRY(sets_.find(id));
    if (number < 0 || static_cast<size_t>(number) >= set->semaphores.size()) {
        return Errno(EINVAL);
    }
    TRY(set->permissions.check(*task.credentials(), 0222));
    set->semaphores[static_cast<size_t>(number)] = {value, IpcActor::of(task)};
    forget_undo_locked(*set, number);
    set->changed_at = ipc_now();
    update_locked(*set);
    return {};
}

Result<int64_t> SemTable::ask(Task& task, int32_t id, int32_t number, Ask what) {
    MutexLock lock(mu_);
    const RefPtr<SemSet> set = TRY(sets_.find(id));
    TRY(set->permissions.check(*task.credentials(), 0444));
    if (number < 0 || static_cast<size_t>(number) >= set->semaphores.size()) {
        return Errno(EINVAL);
    }
    const auto& semaphore = set->semaphores[static_cast<size_t>(number)];
    switch (what) {
        case Ask::kValue:
            return semaphore.value;
        case Ask::kPid:
            return semaphore.last.shown_to(task);
        case Ask::kWaitForMore:
        case Ask::kWaitForZero:
            break;
    }
    return std::count_if(set->waiters.begin(), set->waiters.end(), [&](const auto& waiter) {
        const sembuf& op = waiter->operations[waiter->blocking];
        return op.sem_num == number && (op.sem_op == 0) == (what == Ask::kWaitForZero);
    });
}

SemTable::Info SemTable::info() {
    MutexLock lock(mu_);
    return {sets_.highest(), sets_.count(), total_};
}

std::string SemTable::text(const Task&) {
    std::string s =
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n";
    MutexLock lock(mu_);
    for (const auto& set : sets_.slots()) {
        if (set) {
            const IpcPermissions& p = set->permissions;
            append_text(s, "%10d %10d  %4o %10zu %5u %5u %5u %5u %10lld %10lld\n", p.key, set->id,
                        p.mode, set->semaphores.size(), p.uid, p.gid, p.cuid, p.cgid,
                        static_cast<long long>(set->operated_at),
                        static_cast<long long>(set->changed_at));
        }
    }
    return s;
}

void SemTable::process_exited(const ThreadGroup& group) {
    if (!has_undo_.load(std::memory_order_relaxed)) {
        return;
    }
    const IpcActor who = IpcActor::of(group);
    MutexLock lock(mu_);
    const auto row = undo_.find(&group);
    if (row == undo_.end()) {
        return;
    }
    const UndoList list = std::move(row->second);
    undo_.erase(row);
    has_undo_.store(!undo_.empty(), std::memory_order_relaxed);
    for (const auto& [id, amounts] : list) {
        release_ipc_memory(amounts.size() * sizeof(int16_t));
        const auto found = sets_.find(id);
        if (!found.ok()) {
            continue;
        }
        SemSet& set = **found;
        for (size_t i = 0; i < amounts.size(); i++) {
            if (amounts[i] != 0) {
                auto& semaphore = set.semaphores[i];
                semaphore.value = std::clamp(semaphore.value + amounts[i], 0, kMostValue);
                semaphore.last = who;
            }
        }
        set.operated_at = ipc_now();
        update_locked(set);
    }
}

}  // namespace moat::kernel
