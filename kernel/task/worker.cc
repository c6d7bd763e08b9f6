// Workers: the threads of the sentry that receive notifications.

#include <pthread.h>
#include <signal.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "kernel/base/log.h"
#include "kernel/task/task_run.h"

namespace moat::kernel {

namespace {

// Idle workers are kept: waking one is cheaper than making one. A leaf lock of its own, as
// condition variables need it, never held while anything else is taken.
std::mutex idle_mu;
std::condition_variable idle_cv;
std::deque<RefPtr<platform::Listener>> jobs;
size_t idle_count = 0;
constexpr size_t kMaxIdle = 32;

/// Handlers use little stack: no recursion over guest-controlled depth is allowed in the kernel.
constexpr size_t kWorkerStack = 256 << 10;

/// The listener that the calling worker receives from; null in other threads.
thread_local platform::Listener* own = nullptr;
thread_local RefPtr<platform::Listener> next;

void serve_one(platform::Listener& listener, const platform::Notification& notification) {
    const RefPtr<platform::HostThread> thread = listener.find(notification.tid);
    if (!thread) {
        // A thread that no order made, under a filter of ours.
        LOG(kWarning, "task", "host thread %d is unknown; its process is killed", notification.tid);
        ::kill(notification.tid, SIGKILL);
        return;
    }
    if (platform::is_event(notification)) {
        thread->kick_answered();
    }
    const RefPtr<RefCounted> owner = thread->owner();
    if (!owner) {
        // Its task has ended: bring it into the stub, where it can be used again.
        if (platform::is_event(notification)) {
            thread->event_id = notification.id;
            thread->process().park(thread);
        } else {
            thread->kick();
            listener.reply(notification.id, -EINTR);
        }
        return;
    }
    const WakeScope scope;
    TaskRunner::serve(static_cast<Task&>(*owner), *thread, notification);
}

void serve_listener(RefPtr<platform::Listener> listener) {
    while (listener) {
        own = listener.get();
        const auto notification = listener->receive();
        if (!notification.ok()) {
            break;
        }
        serve_one(*listener, *notification);
        if (next) {
            listener->give_up_receiver();
            listener = std::move(next);
        }
    }
    own = nullptr;
}

void* worker_main(void*) {
    for (;;) {
        RefPtr<platform::Listener> job;
        {
            std::unique_lock lock(idle_mu);
            if (jobs.empty()) {
                if (idle_count >= kMaxIdle) {
                    return nullptr;
                }
                idle_count++;
                idle_cv.wait(lock, [] { return !jobs.empty(); });
                idle_count--;
            }
            job = std::move(jobs.front());
            jobs.pop_front();
        }
        serve_listener(std::move(job));
    }
}

}  // namespace

bool receives_from(const platform::Listener& listener) { return own == &listener; }

void attach_worker(RefPtr<platform::Listener> listener, LeavingOwn leaving) {
    if (!listener->claim_receiver()) {
        return;  // a thread used again: its worker is still there
    }
    if (leaving == LeavingOwn::kYes && own != nullptr && own->thread_count() <= 1 && !next) {
        next = std::move(listener);
        return;
    }
    bool start = false;
    {
        const std::lock_guard lock(idle_mu);
        jobs.push_back(std::move(listener));
        start = idle_count < jobs.size();
    }
    if (!start) {
        idle_cv.notify_one();
        return;
    }
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kWorkerStack);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    CHECK(pthread_create(&thread, &attributes, worker_main, nullptr) == 0);
    pthread_attr_destroy(&attributes);
}

}  // namespace moat::kernel
