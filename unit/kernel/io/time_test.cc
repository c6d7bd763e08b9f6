#include <atomic>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "kernel/fs/timerfd/timerfd.h"
#include "kernel/time/clock.h"
#include "kernel/time/guest_clock.h"
#include "kernel/time/interval_timer.h"
#include "kernel/time/timer_queue.h"
#include "unit/kernel/io/waiting.h"

using namespace moat;
using namespace moat::kernel;
using namespace moat::kernel::test;

namespace {

constexpr int64_t kMs = 1'000'000;

void start_thread_once() {
    static const bool started = (start_timer_thread(), true);
    (void)started;
}

/// Waits for a number of events on another thread.
struct Events {
    std::mutex mu;
    std::condition_variable changed;
    std::vector<int> seen;
    void add(int what) {
        std::lock_guard lock(mu);
        seen.push_back(what);
        changed.notify_all();
    }
    std::vector<int> wait_for(size_t count) {
        std::unique_lock lock(mu);
        changed.wait(lock, [&] { return seen.size() >= count; });
        return seen;
    }
};

class CountingTimer final : public IntervalTimer {
  public:
    explicit CountingTimer(Events& events) : events_(events) {}
    std::atomic<uint64_t> periods{0};

  private:
    void on_expiry(uint64_t n) override {
        periods += n;
        events_.add(1);
    }
    Events& events_;
};

}  // namespace

TEST_CASE("timer queue: callbacks run in order of their deadlines, none too early") {
    start_thread_once();
    Events events;
    const int64_t now = monotonic_ns();
    std::atomic<bool> early{false};
    for (const int ms : {30, 10, 20}) {
        start_timer(now + ms * kMs, [&, ms, now] {
            early = early || monotonic_ns() < now + ms * kMs;
            events.add(ms);
        });
    }
    CHECK(events.wait_for(3) == std::vector<int>{10, 20, 30});
    CHECK(!early);
}

TEST_CASE("timer queue: a cancelled timer does not run, one that has run cannot be cancelled") {
    start_thread_once();
    Events events;
    const int64_t now = monotonic_ns();
    const TimerId first = start_timer(now, [&] { events.add(1); });
    const TimerId doomed = start_timer(now + 20 * kMs, [&] { events.add(2); });
    CHECK(cancel_timer(doomed));
    CHECK(!cancel_timer(doomed));
    start_timer(now + 40 * kMs, [&] { events.add(3); });
    CHECK(events.wait_for(2) == std::vector<int>{1, 3});
    CHECK(!cancel_timer(first));
    CHECK(!cancel_timer(0));
}

TEST_CASE("interval timer: goes off every period and tells of those it has missed") {
    start_thread_once();
    Events events;
    const auto timer = make_ref<CountingTimer>(events);
    const int64_t start = monotonic_ns();
    timer->set(start + 2 * kMs, 2 * kMs);
    events.wait_for(3);
    const auto before = timer->set(0, 0);
    CHECK(before.interval_ns == 2 * kMs);
    CHECK(before.remaining_ns > 0);
    CHECK(timer->get().remaining_ns == 0);
    const auto elapsed = static_cast<uint64_t>((monotonic_ns() - start) / (2 * kMs));
    CHECK(timer->periods >= 3);
    CHECK(timer->periods <= elapsed + 1);
}

TEST_CASE("timerfd: ticks add up until they are taken, and wake waiters") {
    start_thread_once();
    const auto timer = make_ref<TimerFdCore>(CLOCK_MONOTONIC);
    class Telling final : public Waiter {
      public:
        explicit Telling(Events& events) : events_(events) {}
        void on_event(PollMask) override { events_.add(1); }

      private:
        Events& events_;
    };
    Events events;
    const auto waiter = make_ref<Telling>(events);
    timer->queue().add(waiter.get(), EPOLLIN);
    CHECK(timer->take_ticks() == 0);
    itimerspec wanted{};
    wanted.it_value = {0, 3 * kMs};
    wanted.it_interval = {0, 3 * kMs};
    const int64_t start = monotonic_ns();
    timer->set(wanted, false);
    events.wait_for(1);
    CHECK(timer->has_ticks());
    const uint64_t ticks = timer->take_ticks();
    CHECK(ticks >= 1);
    CHECK(static_cast<int64_t>(ticks) <= (monotonic_ns() - start) / (3 * kMs));
    events.wait_for(2);  // armed again by being read
    timer->disarm();
    timer->queue().remove(waiter.get());
}

TEST_CASE("timerfd: an absolute time in the past is due at once") {
    start_thread_once();
    const auto timer = make_ref<TimerFdCore>(CLOCK_REALTIME);
    Events events;
    itimerspec wanted{};
    wanted.it_value = {1, 0};
    timer->set(wanted, true);
    start_timer(monotonic_ns() + 5 * kMs, [&] { events.add(1); });
    events.wait_for(1);
    CHECK(timer->take_ticks() == 1);
    CHECK(timer->get().it_value.tv_sec == 0);
    CHECK(timer->get().it_value.tv_nsec == 0);
}

TEST_CASE("clock: sums that do not fit saturate") {
    CHECK(to_ns(timespec{INT64_MAX, 0}) == INT64_MAX);
    CHECK(to_ns(timespec{INT64_MIN, 0}) == INT64_MIN);
    CHECK(to_ns(timespec{1, 5}) == 1'000'000'005);
    CHECK(add_saturating(INT64_MAX, 1) == INT64_MAX);
    CHECK(add_saturating(INT64_MIN, -1) == INT64_MIN);
    CHECK(monotonic_deadline(CLOCK_REALTIME, INT64_MAX) > monotonic_ns());
}
