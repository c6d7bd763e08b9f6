#include "kernel/task/futex.h"

#include <linux/futex.h>

#include <algorithm>
#include <list>

#include "kernel/mm/address_space.h"
#include "kernel/task/futex_key.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

using Key = FutexKey;

/// One sleeping task. Owned by its continuation and, while it is queued, by its bucket.
struct FutexWaiter : RefCounted {
    Key key;
    uint32_t bits = 0;
    RefPtr<Task> task;
    bool woken = false;  // its bucket's lock; the bucket of a queued waiter only changes with both
};

struct Bucket {
    Mutex<LockRank::kFutexBucket> mu;
    std::list<RefPtr<FutexWaiter>> waiters GUARDED_BY(mu);
};

constexpr size_t kBuckets = 256;
Bucket buckets[kBuckets];

Bucket& bucket_of(const Key& key) {
    uint64_t h = key.object * 0x9e3779b97f4a7c15ull ^ key.offset * 0xc2b2ae3d27d4eb4full;
    h ^= h >> 29;
    return buckets[(h * 0x9e3779b97f4a7c15ull) >> 56];
}
static_assert(kBuckets == 1 << 8);

Result<Key> key_of(Task& task, GuestAddr address, bool is_private) {
    return futex_key_of(task, address, is_private);
}

/// Takes up to `count` fitting waiters out of a locked bucket.
int wake_locked(Bucket& bucket, const Key& key, int count, uint32_t bits,
                std::vector<RefPtr<Task>>& woken) {
    int n = 0;
    for (auto it = bucket.waiters.begin(); it != bucket.waiters.end() && n < count;) {
        if ((*it)->key == key && ((*it)->bits & bits) != 0) {
            (*it)->woken = true;
            woken.push_back((*it)->task);
            it = bucket.waiters.erase(it);
            n++;
        } else {
            ++it;
        }
    }
    return n;
}

void tell(const std::vector<RefPtr<Task>>& woken) {
    for (const auto& task : woken) {
        WakeScope::post(task, EPOLLIN);
    }
}

/// Takes a waiter off its queue. True: it had been woken.
bool withdraw(FutexWaiter& waiter) {
    for (;;) {
        const Key key = waiter.key;  // a requeue may change it: look again under the lock
        Bucket& bucket = bucket_of(key);
        MutexLock lock(bucket.mu);
        if (waiter.woken) {
            return true;
        }
        if (!(waiter.key == key)) {
            continue;
        }
        bucket.waiters.remove_if([&](const auto& w) { return w.get() == &waiter; });
        return false;
    }
}

}  // namespace

Result<FutexKey> futex_key_of(Task& task, GuestAddr address, bool is_private) {
    if ((to_integer(address) & 3) != 0) {
        return Errno(EINVAL);
    }
    FutexKey key;
    if (!is_private && task.mm().shared_key(address, key.object, key.offset)) {
        key.shared = true;
        return key;
    }
    key.object = reinterpret_cast<uint64_t>(&task.mm());
    key.offset = to_integer(address);
    return key;
}

Result<int64_t> futex_wait(Task& task, GuestAddr address, uint32_t expected, uint32_t bits,
                           bool is_private, int64_t deadline_ns, bool has_deadline) {
    if (bits == 0) {
        return Errno(EINVAL);
    }
    auto waiter = make_ref<FutexWaiter>();
    waiter->key = TRY(key_of(task, address, is_private));
    waiter->bits = bits;
    waiter->task = RefPtr<Task>(&task);
    {
        // The word is read with the bucket locked: a waker that changes it first and wakes after
        // cannot slip between. The read is of another process' memory and does not wait for a
        // guest.
        Bucket& bucket = bucket_of(waiter->key);
        MutexLock lock(bucket.mu);
        uint32_t value = 0;
        TRY(task.copy_in_bytes(&value, address, sizeof value));
        if (value != expected) {
            return Errno(EAGAIN);
        }
        bucket.waiters.push_back(waiter);
    }
    const Deadline deadline = !has_deadline
                                  ? Deadline::never()
                                  : task.resumed_deadline().value_or(Deadline::at(deadline_ns));
    return block(task, {}, deadline, [waiter, has_deadline](Task&, Wake wake) -> Result<int64_t> {
        if (wake == Wake::kReady) {
            MutexLock lock(bucket_of(waiter->key).mu);
            if (!waiter->woken) {
                return kBlocked;
            }
            return 0;
        }
        if (withdraw(*waiter)) {
            return 0;
        }
        if (wake == Wake::kTimeout) {
            return Errno(ETIMEDOUT);
        }
        // Linux: ERESTART_RESTARTBLOCK
        return has_deadline ? kRestartNoHand : kRestartSys;
    });
}

Result<int64_t> futex_wake(Task& task, GuestAddr address, int count, uint32_t bits,
                           bool is_private) {
    if (bits == 0) {
        return Errno(EINVAL);
    }
    const Key key = TRY(key_of(task, address, is_private));
    std::vector<RefPtr<Task>> woken;
    int n = 0;
    {
        Bucket& bucket = bucket_of(key);
        MutexLock lock(bucket.mu);
        n = wake_locked(bucket, key, count, bits, woken);
    }
    tell(woken);
    return n;
}

Result<int64_t> futex_requeue(Task& task, GuestAddr from, GuestAddr to, int wake, int requeue,
                              const uint32_t* expected, bool is_private) {
    if (wake < 0 || requeue < 0) {
        return Errno(EINVAL);
    }
    const Key source = TRY(key_of(task, from, is_private));
    const Key target = TRY(key_of(task, to, is_private));
    std::vector<RefPtr<Task>> woken;
    int64_t n = 0;
    {
        Bucket& a = bucket_of(source);
        Bucket& b = bucket_of(target);
        MutexLockPair lock(a.mu, b.mu);
        if (expected != nullptr) {
            uint32_t value = 0;
            TRY(task.copy_in_bytes(&value, from, sizeof value));
            if (value != *expected) {
                return Errno(EAGAIN);
            }
        }
        n = wake_locked(a, source, wake, ~0u, woken);
        for (auto it = a.waiters.begin(); it != a.waiters.end() && requeue > 0;) {
            const auto current = it++;
            if ((*current)->key == source) {
                (*current)->key = target;
                if (&a != &b) {
                    b.waiters.splice(b.waiters.end(), a.waiters, current);
                }
                requeue--;
                n++;
            }
        }
    }
    tell(woken);
    return n;
}

Result<int64_t> futex_wake_op(Task& task, GuestAddr first, GuestAddr second, int wake_first,
                              int wake_second, uint32_t operation, bool is_private) {
    // Linux: kernel/futex/waitwake.c:futex_atomic_op_inuser. Ours is atomic against other futex
    // calls, not against the guest's own instructions on the same word.
    const auto op = static_cast<int>(operation >> 28 & 7);
    const auto compare = static_cast<int>(operation >> 24 & 15);
    int32_t argument = static_cast<int32_t>(operation << 8) >> 20;
    const int32_t compare_argument = static_cast<int32_t>(operation << 20) >> 20;
    if ((operation >> 28 & 8) != 0) {
        argument = 1 << (argument & 31);
    }
    const Key key1 = TRY(key_of(task, first, is_private));
    const Key key2 = TRY(key_of(task, second, is_private));
    int32_t old = 0;
    TRY(task.copy_in_bytes(&old, second, sizeof old));
    int32_t changed = 0;
    switch (op) {
        case FUTEX_OP_SET:
            changed = argument;
            break;
        case FUTEX_OP_ADD:
            changed = old + argument;
            break;
        case FUTEX_OP_OR:
            changed = old | argument;
            break;
        case FUTEX_OP_ANDN:
            changed = old & ~argument;
            break;
        case FUTEX_OP_XOR:
            changed = old ^ argument;
            break;
        default:
            return Errno(ENOSYS);
    }
    bool fits = false;
    switch (compare) {
        case FUTEX_OP_CMP_EQ:
            fits = old == compare_argument;
            break;
        case FUTEX_OP_CMP_NE:
            fits = old != compare_argument;
            break;
        case FUTEX_OP_CMP_LT:
            fits = old < compare_argument;
            break;
        case FUTEX_OP_CMP_LE:
            fits = old <= compare_argument;
            break;
        case FUTEX_OP_CMP_GT:
            fits = old > compare_argument;
            break;
        case FUTEX_OP_CMP_GE:
            fits = old >= compare_argument;
            break;
        default:
            return Errno(ENOSYS);
    }
    std::vector<RefPtr<Task>> woken;
    int64_t n = 0;
    {
        Bucket& a = bucket_of(key1);
        Bucket& b = bucket_of(key2);
        MutexLockPair lock(a.mu, b.mu);
        TRY(task.copy_out_bytes(second, &changed, sizeof changed));
        n = wake_locked(a, key1, wake_first, ~0u, woken);
        if (fits) {
            n += wake_locked(b, key2, wake_second, ~0u, woken);
        }
    }
    tell(woken);
    return n;
}

void futex_wake_one(Task& task, GuestAddr address) {
    (void)futex_wake(task, address, 1, ~0u, true);
    uint64_t object = 0;
    uint64_t offset = 0;
    if (task.mm().shared_key(address, object, offset)) {
        (void)futex_wake(task, address, 1, ~0u, false);
    }
}

// Linux: kernel/futex/core.c:exit_robust_list.
void exit_robust_list(Task& task) {
    struct ListHead {
        uint64_t next;
        int64_t futex_offset;
        uint64_t pending;
    };
    constexpr int kLimit = 2048;  // ROBUST_LIST_LIMIT: the list may be a circle
    const uint64_t head_at = task.robust_list();
    if (head_at == 0) {
        return;
    }
    const auto head = task.copy_in(UserPtr<const ListHead>(head_at));
    if (!head.ok()) {
        return;
    }
    const auto release = [&](uint64_t entry) {
        const UserPtr<uint32_t> word((entry & ~uint64_t{1}) +
                                     static_cast<uint64_t>(head->futex_offset));
        const auto value = task.copy_in(word);
        if (!value.ok() || (*value & FUTEX_TID_MASK) != static_cast<uint32_t>(task.tid())) {
            return;
        }
        (void)task.copy_out(word, (*value & FUTEX_WAITERS) | FUTEX_OWNER_DIED);
        if ((*value & FUTEX_WAITERS) != 0) {
            futex_wake_one(task, word.address());
        }
    };
    uint64_t entry = head->next;
    for (int i = 0; i < kLimit && (entry & ~uint64_t{1}) != head_at; i++) {
        const auto next = task.copy_in(UserPtr<const uint64_t>(entry & ~uint64_t{1}));
        if ((entry & ~uint64_t{1}) != (head->pending & ~uint64_t{1})) {
            release(entry);
        }
        if (!next.ok()) {
            return;
        }
        entry = *next;
    }
    if (head->pending != 0) {
        release(head->pending);
    }
}

}  // namespace moat::kernel
