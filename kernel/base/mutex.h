#pragma once

#include <mutex>
#include <utility>

#include "kernel/base/lock_rank.h"

// Thread-safety annotations: real on clang (-Wthread-safety), empty on gcc.
#if defined(__clang__)
#define MOAT_ANNOTATE(x) __attribute__((x))
#else
#define MOAT_ANNOTATE(x)
#endif
#define CAPABILITY(x) MOAT_ANNOTATE(capability(x))
#define SCOPED_CAPABILITY MOAT_ANNOTATE(scoped_lockable)
#define GUARDED_BY(x) MOAT_ANNOTATE(guarded_by(x))
#define REQUIRES(...) MOAT_ANNOTATE(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) MOAT_ANNOTATE(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) MOAT_ANNOTATE(acquire_capability(__VA_ARGS__))
#define RELEASE(...) MOAT_ANNOTATE(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS MOAT_ANNOTATE(no_thread_safety_analysis)

namespace moat {

/// Debug builds keep a per-thread stack of held ranks and abort on a wrong order, with both names.
void lock_rank_acquire(LockRank rank, bool same_rank_allowed);
void lock_rank_release(LockRank rank);
/// Aborts if this thread holds any lock; called where it is about to wait for another process.
void assert_no_locks_held(const char* where);

template <LockRank Rank>
class CAPABILITY("mutex") Mutex {
  public:
    Mutex() = default;
    Mutex(const Mutex&) = delete;
    Mutex& operator=(const Mutex&) = delete;

    void lock() ACQUIRE() {
#if MOAT_LOCK_RANKS
        lock_rank_acquire(Rank, false);
#endif
        mu_.lock();
    }
    bool try_lock() {
        if (!mu_.try_lock()) {
            return false;
        }
#if MOAT_LOCK_RANKS
        lock_rank_acquire(Rank, true);
#endif
        return true;
    }
    void unlock() RELEASE() {
        mu_.unlock();
#if MOAT_LOCK_RANKS
        lock_rank_release(Rank);
#endif
    }
    /// For lock_pair() only: a second lock of the same rank, in address order.
    void lock_second() ACQUIRE() {
#if MOAT_LOCK_RANKS
        lock_rank_acquire(Rank, true);
#endif
        mu_.lock();
    }
    /// For condition variables.
    std::mutex& native() { return mu_; }

  private:
    std::mutex mu_;
};

/// Holds one mutex for a scope.
template <typename M>
class SCOPED_CAPABILITY MutexLock {
  public:
    explicit MutexLock(M& mu) ACQUIRE(mu) : mu_(&mu) { mu_->lock(); }
    MutexLock(const MutexLock&) = delete;
    MutexLock& operator=(const MutexLock&) = delete;
    ~MutexLock() RELEASE() {
        if (mu_ != nullptr) {
            mu_->unlock();
        }
    }
    void unlock() RELEASE() { std::exchange(mu_, nullptr)->unlock(); }

  private:
    M* mu_;
};

/// Two mutexes of one rank, taken in address order; the same mutex twice is taken once.
template <typename M>
class SCOPED_CAPABILITY MutexLockPair {
  public:
    MutexLockPair(M& a, M& b) NO_THREAD_SAFETY_ANALYSIS : first_(&a < &b ? &a : &b),
                                                          second_(&a < &b ? &b : &a) {
        first_->lock();
        if (second_ != first_) {
            second_->lock_second();
        }
    }
    MutexLockPair(const MutexLockPair&) = delete;
    MutexLockPair& operator=(const MutexLockPair&) = delete;
    ~MutexLockPair() NO_THREAD_SAFETY_ANALYSIS {
        if (second_ != first_) {
            second_->unlock();
        }
        first_->unlock();
    }

  private:
    M* first_;
    M* second_;
};

}  // namespace moat
