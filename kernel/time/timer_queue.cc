#include "kernel/time/timer_queue.h"

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <thread>
#include <unordered_map>

#include "kernel/base/check.h"
#include "kernel/base/mutex.h"
#include "kernel/task/wait_queue.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

namespace {

/// Timers in order of their deadlines; equal ones in the order in which they were started.
class TimerQueue {
  public:
    TimerId start(int64_t deadline_ns, std::function<void()> callback) {
        MutexLock lock(mu_);
        const TimerId id = ++last_id_;
        const auto place = timers_.emplace(Key{deadline_ns, id}, std::move(callback)).first;
        deadlines_.emplace(id, deadline_ns);
        // A later timer leaves the thread asleep: it looks at the queue when it wakes anyway.
        const bool earlier = place == timers_.begin() && deadline_ns < wakes_at_;
        lock.unlock();
        if (earlier) {
            changed_.notify_one();
        }
        return id;
    }

    bool cancel(TimerId id) {
        std::function<void()> doomed;  // what it owns is let go without the lock
        MutexLock lock(mu_);
        const auto known = deadlines_.find(id);
        if (known == deadlines_.end()) {
            return false;
        }
        const auto timer = timers_.find(Key{known->second, id});
        doomed = std::move(timer->second);
        timers_.erase(timer);
        deadlines_.erase(known);
        lock.unlock();
        return true;
    }

    [[noreturn]] void run() {
        pthread_setname_np(pthread_self(), "timer");
        for (;;) {
            std::function<void()> due = next();
            WakeScope scope;
            due();
            due = nullptr;  // inside the scope: letting go of the last reference may notify
        }
    }

  private:
    struct Key {
        int64_t deadline_ns;
        TimerId id;
        bool operator<(const Key& other) const {
            return deadline_ns != other.deadline_ns ? deadline_ns < other.deadline_ns
                                                    : id < other.id;
        }
    };

    /// Sleeps until the first timer is due and takes it out of the queue.
    std::function<void()> next() {
        MutexLock lock(mu_);
        for (;;) {
            if (!timers_.empty() && timers_.begin()->first.deadline_ns <= monotonic_ns()) {
                const auto first = timers_.begin();
                std::function<void()> callback = std::move(first->second);
                deadlines_.erase(first->first.id);
                timers_.erase(first);
                wakes_at_ = INT64_MIN;
                return callback;
            }
            wakes_at_ = timers_.empty() ? INT64_MAX : timers_.begin()->first.deadline_ns;
            wait_locked();
            wakes_at_ = INT64_MIN;  // awake: nobody has to signal
        }
    }

    void wait_locked() NO_THREAD_SAFETY_ANALYSIS {
        std::unique_lock<std::mutex> native(mu_.native(), std::adopt_lock);
        if (wakes_at_ == INT64_MAX) {
            changed_.wait(native);
        } else {
            // steady_clock is CLOCK_MONOTONIC, whose epoch is monotonic_ns()'s.
            changed_.wait_until(
                native, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(wakes_at_)));
        }
        native.release();
    }

    Mutex<LockRank::kTimer> mu_;
    std::condition_variable changed_;
    std::map<Key, std::function<void()>> timers_ GUARDED_BY(mu_);
    std::unordered_map<TimerId, int64_t> deadlines_ GUARDED_BY(mu_);
    TimerId last_id_ GUARDED_BY(mu_) = 0;
    int64_t wakes_at_ GUARDED_BY(mu_) = INT64_MIN;  // INT64_MIN: the thread is awake
};

TimerQueue& queue() {
    static TimerQueue* const instance = new TimerQueue;  // never destroyed: the thread never ends
    return *instance;
}

}  // namespace

TimerId start_timer(int64_t deadline_ns, std::function<void()> callback) {
    return queue().start(deadline_ns, std::move(callback));
}

bool cancel_timer(TimerId id) { return queue().cancel(id); }

void start_timer_thread() {
    static bool started = false;
    CHECK(!started);
    started = true;
    std::thread([] { queue().run(); }).detach();
}

}  // namespace moat::kernel
