#include "kernel/fs/epoll/epoll.h"

#include <fcntl.h>

#include <algorithm>

#include "kernel/base/check.h"
#include "kernel/fs/epoll/poll_mask.h"
#include "kernel/fs/epoll/topology.h"
#include "kernel/fs/pipe/anonymous.h"

namespace moat::kernel {

namespace {

// Bits of epoll_event::events that are no events (Linux: EP_PRIVATE_BITS).
constexpr uint32_t kPrivateBits = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;
constexpr uint32_t kExclusiveAllowed = EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP |
                                       EPOLLET | EPOLLEXCLUSIVE | EPOLLRDNORM | EPOLLWRNORM;

RefPtr<EpollCore> core_of(File& file) {
    auto* const epoll = dynamic_cast<EpollFile*>(&file);
    return epoll != nullptr ? epoll->core_ref() : nullptr;
}

}  // namespace

// ---------------------------------------------------------------- items

EpollItem::EpollItem(RefPtr<EpollCore> core, File& file, Fd fd)
    : core_(std::move(core)), fd_(fd), child_(core_of(file)), file_(&file) {}

EpollItem::~EpollItem() = default;

void EpollItem::on_event(PollMask mask) {
    MutexLock lock(core_->mu_);
    if (file_ == nullptr || (events_ & ~kPrivateBits) == 0 ||
        (wake_mask(events_ & ~kPrivateBits) & mask) == 0) {
        return;
    }
    if (!is_ready_) {
        core_->link_ready_locked(*this);
    }
    lock.unlock();
    core_->wake();
}

// ---------------------------------------------------------------- the ready list

EpollCore::~EpollCore() { CHECK(items_.empty()); }

void EpollCore::link_ready_locked(EpollItem& item) {
    item.is_ready_ = true;
    item.previous_ready_ = last_ready_;
    item.next_ready_ = nullptr;
    (last_ready_ != nullptr ? last_ready_->next_ready_ : first_ready_) = &item;
    last_ready_ = &item;
    ready_count_++;
}

void EpollCore::unlink_ready_locked(EpollItem& item) {
    (item.previous_ready_ != nullptr ? item.previous_ready_->next_ready_ : first_ready_) =
        item.next_ready_;
    (item.next_ready_ != nullptr ? item.next_ready_->previous_ready_ : last_ready_) =
        item.previous_ready_;
    item.is_ready_ = false;
    ready_count_--;
}

void EpollCore::detach_locked(EpollItem& item) {
    if (item.is_ready_) {
        unlink_ready_locked(item);
    }
    File* const file = std::exchange(item.file_, nullptr);
    items_.erase(Key{file, item.fd_});  // the caller holds another reference to the item
}

void EpollCore::wake() {
    waiters_.notify(EPOLLIN);
    pollers_.notify(EPOLLIN | EPOLLRDNORM);
}

size_t EpollCore::ready_count() {
    MutexLock lock(mu_);
    return ready_count_;
}

size_t EpollCore::Batch::take(size_t max) {
    count_ = 0;
    event_count_ = 0;
    {
        MutexLock lock(core_.mu_);
        max = std::min(max, kSize);
        while (count_ < max && core_.first_ready_ != nullptr) {
            EpollItem& item = *core_.first_ready_;
            core_.unlink_ready_locked(item);
            if (!item.file_->try_ref()) {
                continue;  // its end is under way and will remove the item
            }
            Taken& taken = taken_[count_++];
            taken.item = RefPtr<EpollItem>(&item);
            taken.file = adopt_ref(item.file_);
            taken.wanted = item.events_;
            taken.data = item.data_;
            taken.generation = item.generation_;
            taken.ready = 0;
        }
    }
    for (size_t i = 0; i < count_; i++) {
        Taken& taken = taken_[i];
        if ((taken.wanted & ~kPrivateBits) == 0) {
            continue;  // a one-shot item that has been delivered
        }
        taken.ready =
            ready_mask(*taken.file) & (taken.wanted | EPOLLERR | EPOLLHUP) & ~kPrivateBits;
        if (taken.ready != 0) {
            epoll_event& event = events_[event_count_++];
            event.events = taken.ready;
            event.data.u64 = taken.data;
        }
    }
    return count_;
}

void EpollCore::Batch::settle(Settle how) {
    bool more = false;
    {
        MutexLock lock(core_.mu_);
        for (size_t i = 0; i < count_; i++) {
            EpollItem& item = *taken_[i].item;
            if (taken_[i].ready == 0 || item.file_ == nullptr) {
                continue;
            }
            if (how == Settle::kDelivered) {
                if ((taken_[i].wanted & EPOLLONESHOT) != 0) {
                    // Not if EPOLL_CTL_MOD has armed it again since it was taken.
                    if (item.generation_ == taken_[i].generation) {
                        item.events_ &= kPrivateBits;
                    }
                    continue;
                }
                if ((taken_[i].wanted & EPOLLET) != 0) {
                    continue;
                }
            }
            if (!item.is_ready_) {
                core_.link_ready_locked(item);
            }
        }
        more = core_.ready_count_ != 0;
    }
    // References are dropped without the lock: each may be the file's last.
    for (size_t i = 0; i < count_; i++) {
        taken_[i].item.reset();
        taken_[i].file.reset();
    }
    count_ = 0;
    if (more) {
        // Those who came while the items were off the list have seen nothing.
        core_.waiters_.notify(EPOLLIN);
    }
}

// ---------------------------------------------------------------- epoll_ctl

void EpollCore::look(EpollItem& item, File& file) {
    const PollMask ready = ready_mask(file);
    MutexLock lock(mu_);
    if (item.file_ == nullptr || item.is_ready_ || (item.events_ & ~kPrivateBits) == 0 ||
        (ready & (item.events_ | EPOLLERR | EPOLLHUP) & ~kPrivateBits) == 0) {
        return;
    }
    link_ready_locked(item);
    lock.unlock();
    wake();
}

void EpollCore::watch(EpollItem& item, WaitQueue& queue, uint32_t events) {
    queue.add(&item, wake_mask(events & ~kPrivateBits));
    // Another thread may have removed the item, and what it had registered, before this.
    MutexLock lock(mu_);
    const bool removed = item.file_ == nullptr;
    lock.unlock();
    if (removed) {
        queue.remove(&item);
    }
}

Status EpollCore::add(RefPtr<File> target, Fd fd, const epoll_event& event) {
    {
        MutexLock lock(mu_);
        if (items_.count(Key{target.get(), fd}) != 0) {
            return Errno(EEXIST);
        }
    }
    const auto item = make_ref<EpollItem>(RefPtr<EpollCore>(this), *target, fd);
    item->events_ = event.events;
    item->data_ = event.data.u64;
    TRY(EpollTopology::instance().enter(*item, *target));
    {
        MutexLock lock(mu_);
        if (!items_.emplace(Key{target.get(), fd}, item).second) {
            item->file_ = nullptr;
        }
    }
    if (item->file_ == nullptr) {  // another thread was quicker
        EpollTopology::instance().leave(*item, *target);
        return Errno(EEXIST);
    }
    watch(*item, *target->wait_queue(), event.events);
    look(*item, *target);
    return {};
}

Status EpollCore::modify(RefPtr<File> target, Fd fd, const epoll_event& event) {
    RefPtr<EpollItem> item;
    {
        MutexLock lock(mu_);
        const auto known = items_.find(Key{target.get(), fd});
        if (known == items_.end()) {
            return Errno(ENOENT);
        }
        item = known->second;
        if ((item->events_ & EPOLLEXCLUSIVE) != 0) {
            return Errno(EINVAL);
        }
        item->events_ = event.events;
        item->data_ = event.data.u64;
        item->generation_++;
    }
    WaitQueue* const queue = target->wait_queue();
    queue->remove(item.get());
    watch(*item, *queue, event.events);
    look(*item, *target);
    return {};
}

Status EpollCore::remove(RefPtr<File> target, Fd fd) {
    RefPtr<EpollItem> item;
    {
        MutexLock lock(mu_);
        const auto known = items_.find(Key{target.get(), fd});
        if (known == items_.end()) {
            return Errno(ENOENT);
        }
        item = known->second;
        detach_locked(*item);
    }
    EpollTopology::instance().leave(*item, *target);
    target->wait_queue()->remove(item.get());
    return {};
}

Status EpollCore::control(File& self, int operation, RefPtr<File> target, Fd fd,
                          const epoll_event& event) {
    if (!target->can_epoll() || target->wait_queue() == nullptr) {
        return Errno(EPERM);
    }
    if (target == &self) {
        return Errno(EINVAL);
    }
    epoll_event checked = event;
    checked.events &= ~static_cast<uint32_t>(EPOLLWAKEUP);  // no suspend to hold off
    if (operation != EPOLL_CTL_DEL && (checked.events & EPOLLEXCLUSIVE) != 0) {
        if (operation == EPOLL_CTL_MOD || core_of(*target) ||
            (checked.events & ~kExclusiveAllowed) != 0) {
            return Errno(EINVAL);
        }
    }
    checked.events |= EPOLLERR | EPOLLHUP;  // told always; a one-shot item that has fired has none
    switch (operation) {
        case EPOLL_CTL_ADD:
            return add(std::move(target), fd, checked);
        case EPOLL_CTL_MOD:
            return modify(std::move(target), fd, checked);
        case EPOLL_CTL_DEL:
            return remove(std::move(target), fd);
        default:
            return Errno(EINVAL);
    }
}

void EpollCore::close() {
    // Items whose file is dying at this moment are left to the file's own end.
    struct Removed {
        RefPtr<EpollItem> item;
        RefPtr<File> file;
    };
    std::vector<Removed> removed;
    {
        MutexLock lock(mu_);
        for (const auto& [key, item] : items_) {
            if (item->file_->try_ref()) {
                removed.push_back({item, adopt_ref(item->file_)});
            }
        }
        for (const Removed& r : removed) {
            detach_locked(*r.item);
        }
    }
    for (const Removed& r : removed) {
        EpollTopology::instance().leave(*r.item, *r.file);
        r.file->wait_queue()->remove(r.item.get());
    }
}

// ---------------------------------------------------------------- the description

EpollFile::EpollFile() : File(O_RDWR), core_(make_ref<EpollCore>()) {}

EpollFile::~EpollFile() { core_->close(); }

Result<struct stat> EpollFile::stat(Task&) { return anonymous_stat(1, 0600, 0, 0); }

PollMask EpollFile::poll() {
    EpollCore& core = *core_;
    size_t left = core.ready_count();
    // Items that turn out not to be ready are dropped on the way, so that the next look is short.
    EpollCore::Batch batch(core);
    while (left > 0) {
        const size_t taken = batch.take(std::min<size_t>(left, 4));
        const bool ready = batch.event_count() > 0;
        batch.settle(EpollCore::Batch::Settle::kOnlyAsked);
        if (ready) {
            return EPOLLIN | EPOLLRDNORM;
        }
        if (taken == 0) {
            break;
        }
        left -= taken;
    }
    return 0;
}

std::vector<EpollFile::Watch> EpollFile::watches() const {
    std::vector<Watch> result;
    MutexLock lock(core_->mu_);
    for (const auto& [key, item] : core_->items_) {
        result.push_back({item->fd_, item->events_, item->data_});
    }
    return result;
}

}  // namespace moat::kernel
