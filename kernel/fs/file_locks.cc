#include "kernel/fs/file_locks.h"

#include <algorithm>
#include <map>

namespace moat::kernel {

namespace {

bool overlaps(const FileLock& lock, int64_t start, int64_t end) {
    return lock.start <= end && start <= lock.end;
}

bool conflicts(const FileLock& held, const FileLock& wanted) {
    return held.owner != wanted.owner && (held.exclusive || wanted.exclusive) &&
           overlaps(held, wanted.start, wanted.end);
}

// Who waits for whom, for EDEADLK. An owner waits for one lock at a time, except that threads share
// a descriptor table: then the latest counts, and a deadlock may go unseen, as on Linux.
struct WaitGraph {
    Mutex<LockRank::kCounters> mu;
    std::map<const void*, const void*> waits_for;
};
WaitGraph& graph() {
    static WaitGraph* const instance = new WaitGraph();
    return *instance;
}

bool would_deadlock(const void* owner, const void* holder) {
    WaitGraph& g = graph();
    MutexLock lock(g.mu);
    for (int depth = 0; depth < 10; depth++) {  // Linux: MAX_DEADLK_ITERATIONS
        if (holder == owner) {
            return true;
        }
        const auto it = g.waits_for.find(holder);
        if (it == g.waits_for.end()) {
            return false;
        }
        holder = it->second;
    }
    return false;
}

}  // namespace

void note_lock_wait(const void* owner, const void* holder) {
    MutexLock lock(graph().mu);
    graph().waits_for[owner] = holder;
}

void forget_lock_wait(const void* owner) {
    MutexLock lock(graph().mu);
    graph().waits_for.erase(owner);
}

std::optional<FileLock> FileLocks::find_conflict(const FileLock& wanted) const {
    MutexLock lock(mu_);
    for (const FileLock& held : records_) {
        if (conflicts(held, wanted)) {
            return held;
        }
    }
    return std::nullopt;
}

// Takes the range [start, end] away from `owner`; a lock may be cut short, split or dropped.
void FileLocks::cut_locked(const void* owner, int64_t start, int64_t end) {
    for (auto it = records_.begin(); it != records_.end();) {
        if (it->owner != owner || !overlaps(*it, start, end)) {
            ++it;
            continue;
        }
        FileLock tail = *it;
        const bool keep_head = it->start < start;
        const bool keep_tail = it->end > end;
        if (keep_tail) {
            tail.start = end + 1;
            records_.insert(std::next(it), tail);
        }
        if (keep_head) {
            it->end = start - 1;
            ++it;
        } else {
            it = records_.erase(it);
        }
        if (keep_tail) {
            ++it;  // past the tail
        }
    }
}

Status FileLocks::acquire(const FileLock& wanted, bool check_deadlock) {
    MutexLock lock(mu_);
    for (const FileLock& held : records_) {
        if (conflicts(held, wanted)) {
            if (check_deadlock) {
                if (would_deadlock(wanted.owner, held.owner)) {
                    return Errno(EDEADLK);
                }
                note_lock_wait(wanted.owner, held.owner);
            }
            return Errno(EAGAIN);
        }
    }
    cut_locked(wanted.owner, wanted.start, wanted.end);
    FileLock merged = wanted;
    for (auto it = records_.begin(); it != records_.end();) {
        const bool adjacent = it->owner == merged.owner && it->exclusive == merged.exclusive &&
                              ((it->end != INT64_MAX && it->end + 1 == merged.start) ||
                               (merged.end != INT64_MAX && merged.end + 1 == it->start));
        if (adjacent) {
            merged.start = std::min(merged.start, it->start);
            merged.end = std::max(merged.end, it->end);
            it = records_.erase(it);
        } else {
            ++it;
        }
    }
    records_.push_back(merged);
    // A lock that became shared lets others in.
    waiters_.notify(EPOLLIN);
    return {};
}

void FileLocks::release(const void* owner, int64_t start, int64_t end) {
    MutexLock lock(mu_);
    cut_locked(owner, start, end);
    waiters_.notify(EPOLLIN);
}

Status FileLocks::acquire_whole(const FileLock& wanted) {
    MutexLock lock(mu_);
    // flock(2): a change of mode is not atomic, the old lock goes first.
    const size_t dropped = std::erase_if(whole_, [&](const FileLock& held) {
        return held.owner == wanted.owner && held.exclusive != wanted.exclusive;
    });
    if (dropped != 0) {
        waiters_.notify(EPOLLIN);
    }
    for (const FileLock& held : whole_) {
        if (held.owner == wanted.owner) {
            return {};
        }
        if (held.exclusive || wanted.exclusive) {
            return Errno(EAGAIN);
        }
    }
    whole_.push_back(wanted);
    return {};
}

void FileLocks::release_whole(const void* owner) {
    MutexLock lock(mu_);
    if (std::erase_if(whole_, [&](const FileLock& held) { return held.owner == owner; }) != 0) {
        waiters_.notify(EPOLLIN);
    }
}

void FileLocks::release_owner(const void* owner) {
    const auto is_owners = [&](const FileLock& held) { return held.owner == owner; };
    MutexLock lock(mu_);
    if (std::erase_if(records_, is_owners) + std::erase_if(whole_, is_owners) != 0) {
        waiters_.notify(EPOLLIN);
    }
}

bool FileLocks::empty() const {
    MutexLock lock(mu_);
    return records_.empty() && whole_.empty();
}

std::list<FileLock> FileLocks::snapshot() const {
    MutexLock lock(mu_);
    return records_;
}

}  // namespace moat::kernel
