#include "cri/images/trash.h"

#include <spdlog/spdlog.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cri/base/fault_point.h"

namespace moat::cri {

Trash::Trash(std::string directory) : directory_(std::move(directory)) {}

Trash::~Trash() {
    {
        const std::lock_guard lock(mu_);
        ending_ = true;
    }
    changed_.notify_all();
    if (worker_.joinable()) {
        worker_.join();
    }
}

Status Trash::take(const std::string& path) {
    if (access((path + "/.").c_str(), F_OK) != 0) {
        return remove_tree(path);  // no directory
    }
    auto lock = FileLock::acquire(path, FileLock::Mode::kExclusive, FileLock::Wait::kNo);
    if (!lock.ok()) {
        return remove_tree(path);
    }
    std::string place = directory_ + "/gone-XXXXXX";
    // An empty directory is what a directory may be renamed over.
    if (mkdtemp(place.data()) == nullptr || rename(path.c_str(), place.c_str()) != 0) {
        (void)rmdir(place.c_str());
        return remove_tree(path);
    }
    fault_point("image.tree renamed to be removed");
    const std::lock_guard guard(mu_);
    items_.push_back({std::move(place), std::move(*lock)});
    if (!worker_.joinable()) {
        worker_ = std::thread([this] { work(); });
    }
    changed_.notify_all();
    return {};
}

void Trash::work() {
    std::unique_lock guard(mu_);
    for (;;) {
        changed_.wait(guard, [this] { return ending_ || !items_.empty(); });
        if (items_.empty()) {
            return;
        }
        const Item item = std::move(items_.front());
        items_.pop_front();
        removing_ = true;
        guard.unlock();
        if (const Status removed = remove_tree(item.path); !removed.ok()) {
            // The next start tries again.
            spdlog::error("files of what was removed: {}", removed.error().message());
        }
        guard.lock();
        removing_ = false;
        removed_.notify_all();
    }
}

bool Trash::wait_empty(std::chrono::seconds longest) {
    std::unique_lock guard(mu_);
    return removed_.wait_for(guard, longest, [this] { return items_.empty() && !removing_; });
}

}  // namespace moat::cri
