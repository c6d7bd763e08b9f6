#include "cri/server/worker_pool.h"

#include <chrono>
#include <system_error>
#include <thread>

namespace moat::cri {

namespace {

constexpr std::chrono::seconds kIdle{10};

}  // namespace

WorkerPool::~WorkerPool() {
    std::unique_lock lock(mu_);
    ending_ = true;
    wanted_.notify_all();
    ended_.wait(lock, [this] { return threads_ == 0; });
}

bool WorkerPool::run(std::function<void()> work) {
    const std::lock_guard lock(mu_);
    if (idle_ > waiting_.size()) {
        waiting_.push_back(std::move(work));
        wanted_.notify_one();
        return true;
    }
    if (threads_ == most_threads_) {
        return false;
    }
    waiting_.push_back(std::move(work));
    try {
        std::thread([this] { work_on(); }).detach();
    } catch (const std::system_error&) {
        waiting_.pop_back();
        return false;
    }
    ++threads_;
    ++idle_;  // until it has taken its work
    return true;
}

void WorkerPool::work_on() {
    std::unique_lock lock(mu_);
    for (;;) {
        const bool found =
            wanted_.wait_for(lock, kIdle, [this] { return ending_ || !waiting_.empty(); });
        if (!found || waiting_.empty()) {
            break;
        }
        const std::function<void()> work = std::move(waiting_.front());
        waiting_.pop_front();
        --idle_;
        lock.unlock();
        work();
        lock.lock();
        ++idle_;
    }
    --idle_;
    --threads_;
    ended_.notify_all();
}

}  // namespace moat::cri
