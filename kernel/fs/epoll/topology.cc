#include "kernel/fs/epoll/topology.h"

#include <algorithm>

namespace moat::kernel {

EpollTopology& EpollTopology::instance() {
    static EpollTopology* const topology = new EpollTopology;
    return *topology;
}

/// The number of levels of instances below `core`; more than `limit` if there are more or if
/// `forbidden` is among them.
int EpollTopology::depth_below_locked(EpollCore& core, EpollCore& forbidden, int limit) {
    if (&core == &forbidden || limit < 0) {
        return kMaxNesting + 1;
    }
    std::vector<RefPtr<EpollCore>> children;
    {
        MutexLock lock(core.mu_);
        for (const auto& [key, item] : core.items_) {
            if (item->child_) {
                children.push_back(item->child_);
            }
        }
    }
    int deepest = 0;
    for (const RefPtr<EpollCore>& child : children) {
        deepest = std::max(deepest, 1 + depth_below_locked(*child, forbidden, limit - 1));
        if (deepest > kMaxNesting) {
            break;
        }
    }
    return deepest;
}

int EpollTopology::depth_above_locked(EpollCore& core, int limit) {
    if (limit < 0) {
        return kMaxNesting + 1;
    }
    int highest = 0;
    for (EpollCore* const parent : core.parents_) {
        highest = std::max(highest, 1 + depth_above_locked(*parent, limit - 1));
        if (highest > kMaxNesting) {
            break;
        }
    }
    return highest;
}

Status EpollTopology::enter(EpollItem& item, File& file) {
    MutexLock lock(mu_);
    if (count_ >= kMaxWatches) {
        return Errno(ENOSPC);
    }
    if (item.child_) {
        const int below = depth_below_locked(*item.child_, *item.core_, kMaxNesting);
        if (below > kMaxNesting ||
            below + 1 + depth_above_locked(*item.core_, kMaxNesting) > kMaxNesting) {
            return Errno(ELOOP);
        }
        // Linux bounds the number of ways an event can take (reverse_path_check); so does this.
        if (item.child_->parents_.size() >= 100) {
            return Errno(EINVAL);
        }
        item.child_->parents_.push_back(item.core_.get());
    }
    watchers_[&file].push_back(RefPtr<EpollItem>(&item));
    count_++;
    file.epolled_.store(true, std::memory_order_release);
    return {};
}

void EpollTopology::drop_parent_locked(EpollItem& item) {
    if (item.child_) {
        std::vector<EpollCore*>& parents = item.child_->parents_;
        const auto place = std::find(parents.begin(), parents.end(), item.core_.get());
        if (place != parents.end()) {
            parents.erase(place);
        }
    }
}

void EpollTopology::leave(EpollItem& item, File& file) {
    RefPtr<EpollItem> kept(&item);  // not to die with the lock held
    MutexLock lock(mu_);
    const auto row = watchers_.find(&file);
    if (row == watchers_.end()) {
        return;
    }
    auto& items = row->second;
    const auto place = std::find(items.begin(), items.end(), &item);
    if (place == items.end()) {
        return;
    }
    items.erase(place);
    count_--;
    if (items.empty()) {
        watchers_.erase(row);
    }
    drop_parent_locked(item);
    lock.unlock();
}

void EpollTopology::forget(File& file) {
    std::vector<RefPtr<EpollItem>> items;
    MutexLock lock(mu_);
    const auto row = watchers_.find(&file);
    if (row == watchers_.end()) {
        return;
    }
    items = std::move(row->second);
    watchers_.erase(row);
    count_ -= items.size();
    for (const RefPtr<EpollItem>& item : items) {
        drop_parent_locked(*item);
    }
    lock.unlock();
    for (const RefPtr<EpollItem>& item : items) {
        {
            MutexLock core_lock(item->core_->mu_);
            if (item->file_ != nullptr) {
                item->core_->detach_locked(*item);
            }
        }
        // Even if somebody else has detached it: they could not keep the file alive, so the queue
        // is left to us.
        if (WaitQueue* const queue = file.wait_queue()) {
            queue->remove(item.get());
        }
    }
}

void File::last_unref() {
    if (EpollTopology::is_watched(*this)) {
        EpollTopology::instance().forget(*this);
    }
    RefCounted::last_unref();
}

}  // namespace moat::kernel
