#include "kernel/platform/kick_watch.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <iterator>
#include <mutex>
#include <optional>
#include <vector>

#include "kernel/base/check.h"
#include "kernel/base/log.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/platform/layout.h"

namespace moat::platform {

namespace {

using Clock = std::chrono::steady_clock;

/// Processor time that a thread may use with the kick blocked and pending. The stub blocks signals
/// too, but needs microseconds; a thread that waits there, is paused or gets no CPU uses none.
constexpr uint64_t kPatienceCpuNs = 30'000'000;
/// A thread that keeps a kick pending without using the CPU is looked at less and less often.
constexpr auto kLongestPause = std::chrono::milliseconds(1600);

struct Watched {
    RefPtr<HostThread> thread;
    Clock::time_point next_look;
    Clock::duration pause;
    std::optional<uint64_t> cpu_ns;  ///< when the kick was first seen blocked
};

// A leaf lock, as condition variables need it.
std::mutex watch_mu;
std::condition_variable watch_cv;
std::vector<Watched> added;
bool running = false;

/// A small file of the host's /proc about a thread; empty when the thread has gone.
size_t read_thread_file(const HostThread& thread, const char* name, char* text, size_t size) {
    char path[96];
    snprintf(path, sizeof path, "/proc/%d/task/%d/%s", thread.process().pid(), thread.tid(), name);
    const ScopedFd fd(::open(path, O_RDONLY | O_CLOEXEC));
    const ssize_t n = fd ? ::read(fd.get(), text, size - 1) : 0;
    text[n > 0 ? n : 0] = '\0';
    return n > 0 ? static_cast<size_t>(n) : 0;
}

/// A mask of proc(5)'s status file.
uint64_t mask_of(const char* status, const char* field) {
    const char* at = strstr(status, field);
    return at != nullptr ? strtoull(at + strlen(field), nullptr, 16) : 0;
}

bool blocks_the_kick(const HostThread& thread) {
    char status[4096];
    if (read_thread_file(thread, "status", status, sizeof status) == 0) {
        return false;
    }
    constexpr uint64_t kBit = 1ull << (MOAT_KICK - 1);
    return (mask_of(status, "\nSigBlk:") & mask_of(status, "\nSigPnd:") & kBit) != 0;
}

/// Whether to go on watching.
bool look(Watched& watched, Clock::time_point now) {
    HostThread& thread = *watched.thread;
    if (!thread.kick_unanswered() || thread.process().dead()) {
        return false;
    }
    if (!blocks_the_kick(thread)) {
        // Delivered: it is on its way into the stub, or was there already for something else.
        thread.kick_answered();
        return false;
    }
    const uint64_t cpu = thread_cpu_ns(thread);
    if (!watched.cpu_ns) {
        watched.cpu_ns = cpu;
    } else if (cpu - *watched.cpu_ns > kPatienceCpuNs) {
        LOG(kWarning, "platform", "host process %d computes on with the kick blocked; killed",
            thread.process().pid());
        thread.process().kill();
        return false;
    } else {
        watched.pause = std::min<Clock::duration>(watched.pause * 2, kLongestPause);
    }
    watched.next_look = now + watched.pause;
    return true;
}

void* watch_main(void*) {
    std::vector<Watched> watched;
    for (;;) {
        {
            std::unique_lock lock(watch_mu);
            if (watched.empty()) {
                watch_cv.wait(lock, [] { return !added.empty(); });
            } else {
                auto next = watched.front().next_look;
                for (const Watched& w : watched) {
                    next = std::min(next, w.next_look);
                }
                watch_cv.wait_until(lock, next);
            }
            std::move(added.begin(), added.end(), std::back_inserter(watched));
            added.clear();
        }
        const auto now = Clock::now();
        std::erase_if(watched, [&](Watched& w) {
            // One that has answered is let go at once: it may be the last that holds its process.
            return !w.thread->kick_unanswered() || (w.next_look <= now && !look(w, now));
        });
    }
}

}  // namespace

uint64_t thread_cpu_ns(const HostThread& thread) {
    char text[128];
    read_thread_file(thread, "schedstat", text, sizeof text);
    return strtoull(text, nullptr, 10);
}

void watch_kick(RefPtr<HostThread> thread) {
    constexpr auto kPatience = std::chrono::milliseconds(kKickPatienceMs);
    bool first = false;
    {
        const std::lock_guard lock(watch_mu);
        first = added.empty();
        added.push_back({std::move(thread), Clock::now() + kPatience, kPatience, std::nullopt});
        if (!running) {
            running = true;
            pthread_t watcher;
            CHECK(pthread_create(&watcher, nullptr, watch_main, nullptr) == 0);
            pthread_detach(watcher);
        }
    }
    if (first) {
        watch_cv.notify_one();
    }
}

}  // namespace moat::platform
