// futex(2) with owners: FUTEX_LOCK_PI and its like. Priorities are not inherited, as guests have
// none; what is kept is who owns a lock, that it is handed over in the order of asking, and that it
// is handed on when its owner ends.
//
// The word belongs to the guest's own instructions while it is 0 or an owner's number: they swap
// one for the other. Once FUTEX_WAITERS is in it they leave it alone and call us. That bit is
// therefore set by the host's atomic instruction, in the caller's own thread (FUTEX_WAKE_OP, which
// wakes nobody), and everything else is decided and stored under our lock while it is there.

#include <linux/futex.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <list>
#include <map>

#include "kernel/mm/address_space.h"
#include "kernel/task/futex.h"
#include "kernel/task/futex_key.h"
#include "kernel/task/task.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

namespace {

struct PiWaiter : RefCounted {
    FutexKey key;
    GuestAddr address{};
    RefPtr<Task> task;
    bool owns = false;  // handed over
};

struct PiLock {
    // As the word said when the first waiter came, then whom we gave it. Compared only; it does not
    // outlive the task, see exit_pi_locks().
    const Task* owner = nullptr;
    std::list<RefPtr<PiWaiter>> waiters;
};

struct Table {
    Mutex<LockRank::kFutexBucket> mu;
    std::map<FutexKey, PiLock> locks GUARDED_BY(mu);  // those that somebody waits for
};

Table& table() {
    static Table* const instance = new Table;
    return *instance;
}

std::atomic<size_t> lock_count{0};  // of the table; a hint for exits

uint32_t number_of(const Task& task) { return static_cast<uint32_t>(task.tid()); }

/// Sets FUTEX_WAITERS, in the stub. EFAULT.
Status set_waiters(Task& task, GuestAddr address) {
    constexpr uint64_t kOrBit31 = uint64_t{FUTEX_OP_OR | FUTEX_OP_OPARG_SHIFT} << 28 | 31 << 12;
    const uint64_t word = to_integer(address);
    if (!is_clear_of_stub(word, sizeof(uint32_t))) {
        return Errno(EFAULT);
    }
    const platform::Order order{
        SYS_futex, {word, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0, word, kOrBit31 & 0xffffffff}};
    const auto result = task.thread().run_orders(std::span(&order, 1));
    task.moved_on();
    if (!result.ok()) {
        return result.error();
    }
    return *result < 0 ? Status(Errno(static_cast<int>(-*result))) : Status();
}

/// Gives the lock to the first who waits. False: nobody does.
bool hand_over_locked(Table& t, std::map<FutexKey, PiLock>::iterator at, uint32_t more_bits)
    REQUIRES(t.mu) {
    PiLock& lock = at->second;
    while (!lock.waiters.empty()) {
        const RefPtr<PiWaiter> next = std::move(lock.waiters.front());
        lock.waiters.pop_front();
        const uint32_t value = number_of(*next->task) | FUTEX_WAITERS | more_bits;
        const RefPtr<AddressSpace> mm = next->task->mm_ref();
        if (!mm || mm->write(next->address, &value, sizeof value) != sizeof value) {
            continue;  // it is about to end
        }
        next->owns = true;
        WakeScope::post(next->task, EPOLLIN);
        lock.owner = next->task.get();
        if (lock.waiters.empty()) {
            t.locks.erase(at);
            lock_count.fetch_sub(1, std::memory_order_relaxed);
        }
        return true;
    }
    t.locks.erase(at);
    lock_count.fetch_sub(1, std::memory_order_relaxed);
    return false;
}

void withdraw_locked(Table& t, PiWaiter& waiter) REQUIRES(t.mu) {
    const auto at = t.locks.find(waiter.key);
    if (at == t.locks.end()) {
        return;
    }
    at->second.waiters.remove_if([&](const auto& w) { return w.get() == &waiter; });
    if (at->second.waiters.empty()) {
        t.locks.erase(at);
        lock_count.fetch_sub(1, std::memory_order_relaxed);
    }
}

}  // namespace

Result<int64_t> futex_lock_pi(Task& task, GuestAddr address, bool is_private, MayBlock may_block,
                              Deadline deadline) {
    if (!task.in_stub()) {
        return kNeedStub;
    }
    const FutexKey key = TRY(futex_key_of(task, address, is_private));
    Table& t = table();
    RefPtr<PiWaiter> waiter;
    // An unlock may take the bit away between our setting it and our look.
    constexpr int kTurns = 1000;
    for (int turn = 0; !waiter; turn++) {
        if (turn == kTurns) {
            return Errno(EAGAIN);
        }
        TRY(set_waiters(task, address));
        MutexLock lock(t.mu);
        uint32_t value = 0;
        TRY(task.copy_in_bytes(&value, address, sizeof value));
        if ((value & FUTEX_WAITERS) == 0) {
            continue;
        }
        const auto owner_number = static_cast<int32_t>(value & FUTEX_TID_MASK);
        const auto at = t.locks.find(key);
        if (owner_number == 0) {
            const uint32_t mine = number_of(task) | (value & FUTEX_OWNER_DIED) |
                                  (at != t.locks.end() ? uint32_t{FUTEX_WAITERS} : 0u);
            if (at != t.locks.end()) {
                at->second.owner = &task;
            }
            TRY(task.copy_out_bytes(address, &mine, sizeof mine));
            return 0;
        }
        if (owner_number == task.tid()) {
            return Errno(EDEADLK);
        }
        if (may_block == MayBlock::kNo) {
            return Errno(EAGAIN);
        }
        waiter = make_ref<PiWaiter>();
        waiter->key = key;
        waiter->address = address;
        waiter->task = RefPtr<Task>(&task);
        if (at != t.locks.end()) {
            at->second.waiters.push_back(waiter);
            break;
        }
        // The task table's lock comes before ours: look without it, and come back.
        lock.unlock();
        const RefPtr<Task> owner = task.pid_namespace().find_task(owner_number);
        if (!owner) {
            return Errno(ESRCH);
        }
        MutexLock again(t.mu);
        uint32_t now = 0;
        TRY(task.copy_in_bytes(&now, address, sizeof now));
        if (now != value || t.locks.count(key) != 0 || owner->state_letter() == 'Z') {
            waiter = nullptr;
            continue;
        }
        PiLock& made = t.locks[key];
        lock_count.fetch_add(1, std::memory_order_relaxed);
        made.owner = owner.get();
        made.waiters.push_back(waiter);
    }
    return block(task, {}, deadline, [waiter](Task&, Wake wake) -> Result<int64_t> {
        Table& all = table();
        MutexLock lock(all.mu);
        if (waiter->owns) {
            return 0;
        }
        if (wake == Wake::kReady) {
            return kBlocked;
        }
        withdraw_locked(all, *waiter);
        return wake == Wake::kTimeout ? Errno(ETIMEDOUT) : kRestartNoIntr;
    });
}

Result<int64_t> futex_unlock_pi(Task& task, GuestAddr address, bool is_private) {
    const FutexKey key = TRY(futex_key_of(task, address, is_private));
    Table& t = table();
    MutexLock lock(t.mu);
    uint32_t value = 0;
    TRY(task.copy_in_bytes(&value, address, sizeof value));
    if ((value & FUTEX_TID_MASK) != number_of(task)) {
        return Errno(EPERM);
    }
    const auto at = t.locks.find(key);
    if (at != t.locks.end() && hand_over_locked(t, at, 0)) {
        return 0;
    }
    const uint32_t free = 0;
    TRY(task.copy_out_bytes(address, &free, sizeof free));
    return 0;
}

void exit_pi_locks(Task& task) {
    if (lock_count.load(std::memory_order_relaxed) == 0) {
        return;
    }
    Table& t = table();
    MutexLock lock(t.mu);
    for (auto it = t.locks.begin(); it != t.locks.end();) {
        const auto at = it++;
        if (at->second.owner == &task) {
            (void)hand_over_locked(t, at, FUTEX_OWNER_DIED);
        }
    }
}

}  // namespace moat::kernel
