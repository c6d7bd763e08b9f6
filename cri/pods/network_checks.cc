#include "cri/pods/network_checks.h"

#include "cri/base/files.h"

namespace moat::cri {

namespace {

/// A pod that is asked about by a program is often stopped right away: its DEL is not to meet a
/// CHECK.
constexpr std::chrono::milliseconds kDelay{500};

}  // namespace

NetworkChecks::NetworkChecks(Check check) : check_(std::move(check)) {}

NetworkChecks::~NetworkChecks() {
    {
        const std::lock_guard lock(mu_);
        ending_ = true;
    }
    changed_.notify_all();
    if (worker_.joinable()) {
        worker_.join();
    }
}

NetworkChecks::Answer NetworkChecks::ask(const std::string& pod_id) {
    const std::lock_guard lock(mu_);
    Item& item = items_[pod_id];
    if (!item.wanted) {
        item.wanted = true;
        item.due = std::chrono::steady_clock::now() + kDelay;
        if (!worker_.joinable()) {
            worker_ = std::thread([this] { work(); });
        }
        changed_.notify_all();
    }
    Answer answer = item.answer;
    if (answer.at_ns == 0) {
        answer.result = "asked for just now: ask again";
    }
    return answer;
}

void NetworkChecks::forget(const std::string& pod_id) {
    const std::lock_guard lock(mu_);
    items_.erase(pod_id);
}

void NetworkChecks::work() {
    std::unique_lock lock(mu_);
    while (!ending_) {
        auto next = items_.end();
        for (auto it = items_.begin(); it != items_.end(); ++it) {
            if (it->second.wanted && (next == items_.end() || it->second.due < next->second.due)) {
                next = it;
            }
        }
        if (next == items_.end()) {
            changed_.wait(lock);
            continue;
        }
        if (const auto due = next->second.due; due > std::chrono::steady_clock::now()) {
            changed_.wait_until(lock, due);
            continue;
        }
        const std::string pod_id = next->first;
        next->second.wanted = false;
        lock.unlock();
        const std::optional<Status> checked = check_(pod_id);
        lock.lock();
        if (const auto it = items_.find(pod_id); it != items_.end() && checked) {
            it->second.answer = {checked->ok() ? "ok" : checked->error().message(), now_ns()};
        }
    }
}

}  // namespace moat::cri
