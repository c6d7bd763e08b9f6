#include "kernel/task/wait_queue.h"

#include <algorithm>

namespace moat::kernel {

namespace {

struct Pending {
    RefPtr<Waiter> waiter;
    PollMask mask;
};
thread_local std::vector<Pending> pending;
thread_local int depth = 0;

}  // namespace

void WaitQueue::add(Waiter* waiter, PollMask mask) {
    MutexLock lock(mu_);
    entries_.push_back({RefPtr<Waiter>(waiter), mask | EPOLLERR | EPOLLHUP});
    count_.store(entries_.size(), std::memory_order_seq_cst);
}

void WaitQueue::remove(Waiter* waiter) {
    std::vector<Entry> removed;  // references are dropped without the lock
    MutexLock lock(mu_);
    for (size_t i = 0; i < entries_.size();) {
        if (entries_[i].waiter == waiter) {
            removed.push_back(std::move(entries_[i]));
            entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(i));
        } else {
            i++;
        }
    }
    count_.store(entries_.size(), std::memory_order_relaxed);
    lock.unlock();
}

void WaitQueue::notify(PollMask mask) {
    if (count_.load(std::memory_order_seq_cst) == 0) {
        return;
    }
    MutexLock lock(mu_);
    for (const Entry& entry : entries_) {
        if ((entry.mask & mask) != 0) {
            CHECK(depth > 0);
            pending.push_back({entry.waiter, mask & entry.mask});
        }
    }
}

WakeScope::WakeScope() { depth++; }

WakeScope::~WakeScope() {
    if (depth == 1) {
        flush();
    }
    depth--;
}

void WakeScope::flush() {
    assert_no_locks_held("waking");
    // Those told may cause further events; they are appended and told in turn.
    while (!pending.empty()) {
        std::vector<Pending> batch;
        batch.swap(pending);
        for (Pending& p : batch) {
            p.waiter->on_event(p.mask);
        }
    }
}

void WakeScope::post(RefPtr<Waiter> waiter, PollMask mask) {
    CHECK(depth > 0);
    pending.push_back({std::move(waiter), mask});
}

}  // namespace moat::kernel
