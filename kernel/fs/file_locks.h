#pragma once

#include <cstdint>
#include <list>
#include <optional>

#include "kernel/base/mutex.h"
#include "kernel/base/result.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

/// One advisory record lock over [start, end], inclusive.
struct FileLock {
    const void* owner = nullptr;  ///< a descriptor table (POSIX) or a description (OFD, flock)
    int32_t pid = 0;              ///< for F_GETLK; -1 for OFD locks
    bool exclusive = false;
    int64_t start = 0;
    int64_t end = INT64_MAX;
};

/// The advisory locks of one inode: fcntl(2)'s (POSIX and OFD together) and flock(2)'s, which do
/// not see each other (Linux: struct file_lock_context).
class FileLocks {
  public:
    /// F_GETLK: the first lock in the way of `wanted`.
    std::optional<FileLock> find_conflict(const FileLock& wanted) const;
    /// F_SETLK: EAGAIN if another owner's lock is in the way; replaces, splits and joins the
    /// owner's own. With `check_deadlock`, EDEADLK when waiting for the lock in the way would never
    /// end.
    Status acquire(const FileLock& wanted, bool check_deadlock);
    void release(const void* owner, int64_t start, int64_t end);
    /// flock(2). EAGAIN.
    Status acquire_whole(const FileLock& wanted);
    void release_whole(const void* owner);
    /// Everything `owner` has here, of both kinds.
    void release_owner(const void* owner);
    /// Told when a lock goes away.
    WaitQueue& waiters() { return waiters_; }
    bool empty() const;
    /// For /proc/locks: all locks of fcntl's kind.
    std::list<FileLock> snapshot() const;

  private:
    void cut_locked(const void* owner, int64_t start, int64_t end) REQUIRES(mu_);

    mutable Mutex<LockRank::kFileLocks> mu_;
    std::list<FileLock> records_ GUARDED_BY(mu_);
    std::list<FileLock> whole_ GUARDED_BY(mu_);
    WaitQueue waiters_;
};

/// A blocked F_SETLKW: `owner` waits for what `holder` has, until the end of the scope's object.
void note_lock_wait(const void* owner, const void* holder);
void forget_lock_wait(const void* owner);

}  // namespace moat::kernel
