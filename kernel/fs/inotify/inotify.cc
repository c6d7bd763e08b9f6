#include "kernel/fs/inotify/inotify.h"

#include <sys/inotify.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>

#include "kernel/fs/inode_extras.h"
#include "kernel/task/task.h"

namespace moat::kernel {

std::atomic<size_t> inotify_watch_count{0};

namespace {

constexpr size_t kMaxWatches = 65536;       // fs.inotify.max_user_watches
constexpr size_t kMaxQueuedEvents = 16384;  // fs.inotify.max_queued_events
constexpr uint32_t kEventMask = IN_ALL_EVENTS;

// One lock for all instances and marks: events are rare beside file operations, and the count above
// keeps it out of their way when nobody watches.
Mutex<LockRank::kEpoll> mu;

size_t event_size(const std::string& name) {
    // Linux pads the name with NULs to a multiple of the event's size.
    const size_t unit = sizeof(inotify_event);
    return unit + (name.empty() ? 0 : (name.size() / unit + 1) * unit);
}

}  // namespace

InotifyFile::InotifyFile(uint32_t flags) : File(flags) {}

InotifyFile::~InotifyFile() {
    std::map<int32_t, Watch> watches;
    {
        MutexLock lock(mu);
        watches.swap(watches_);
        for (auto& [descriptor, watch] : watches) {
            drop_mark_locked(*watch.path.dentry()->inode(), descriptor);
        }
    }
}

void InotifyFile::drop_mark_locked(Inode& inode, int32_t descriptor) {
    InodeExtras* extras = inode.extras_if_any();
    if (extras == nullptr || extras->marks == nullptr) {
        return;
    }
    const size_t removed = std::erase_if(extras->marks->marks, [&](const InotifyMarks::Mark& mark) {
        return mark.instance == this && mark.descriptor == descriptor;
    });
    inotify_watch_count.fetch_sub(removed, std::memory_order_relaxed);
}

Result<int32_t> InotifyFile::add_watch(const Path& path, uint32_t mask) {
    Inode& inode = *path.dentry()->inode();
    InodeExtras& extras = inode.extras();
    const uint32_t kept = mask & (kEventMask | IN_ONESHOT | IN_EXCL_UNLINK);
    MutexLock lock(mu);
    if (extras.marks == nullptr) {
        extras.marks = std::make_unique<InotifyMarks>();
    }
    for (InotifyMarks::Mark& mark : extras.marks->marks) {
        if (mark.instance == this) {
            if ((mask & IN_MASK_CREATE) != 0) {
                return Errno(EEXIST);
            }
            mark.mask = (mask & IN_MASK_ADD) != 0 ? mark.mask | kept : kept;
            watches_.at(mark.descriptor).mask = mark.mask;
            return mark.descriptor;
        }
    }
    if (inotify_watch_count.load(std::memory_order_relaxed) >= kMaxWatches) {
        return Errno(ENOSPC);
    }
    const int32_t descriptor = next_descriptor_++;
    watches_.emplace(descriptor, Watch{path, kept});
    extras.marks->marks.push_back({this, descriptor, kept});
    inotify_watch_count.fetch_add(1, std::memory_order_relaxed);
    return descriptor;
}

Status InotifyFile::remove_watch(int32_t descriptor) {
    Path dropped;  // released without the lock
    MutexLock lock(mu);
    const auto it = watches_.find(descriptor);
    if (it == watches_.end()) {
        return Errno(EINVAL);
    }
    dropped = std::move(it->second.path);
    watches_.erase(it);
    drop_mark_locked(*dropped.dentry()->inode(), descriptor);
    push_locked({descriptor, IN_IGNORED, 0, {}});
    lock.unlock();
    return {};
}

void InotifyFile::push_locked(Event event) {
    if (events_.size() >= kMaxQueuedEvents) {
        if (events_.back().mask == IN_Q_OVERFLOW) {
            return;
        }
        event = {-1, IN_Q_OVERFLOW, 0, {}};
    } else if (!events_.empty()) {
        const Event& last = events_.back();
        if (last.descriptor == event.descriptor && last.mask == event.mask &&
            last.cookie == event.cookie && last.name == event.name) {
            return;  // inotify(7): identical successive events are merged
        }
    }
    queued_bytes_ += event_size(event.name);
    events_.push_back(std::move(event));
    waiters_.notify(EPOLLIN);
}

Result<size_t> InotifyFile::read(Task&, IoBuffer& destination) {
    size_t total = 0;
    for (;;) {
        Event event;
        {
            MutexLock lock(mu);
            if (events_.empty()) {
                return total != 0 ? Result<size_t>(total) : Errno(EAGAIN);
            }
            if (event_size(events_.front().name) > destination.remaining()) {
                return total != 0 ? Result<size_t>(total) : Errno(EINVAL);
            }
            event = std::move(events_.front());
            events_.pop_front();
            queued_bytes_ -= event_size(event.name);
        }
        const size_t size = event_size(event.name);
        std::vector<char> bytes(size);
        inotify_event head{};
        head.wd = event.descriptor;
        head.mask = event.mask;
        head.cookie = event.cookie;
        head.len = static_cast<uint32_t>(size - sizeof head);
        memcpy(bytes.data(), &head, sizeof head);
        memcpy(bytes.data() + sizeof head, event.name.data(), event.name.size());
        total += TRY(destination.put(bytes.data(), size));
    }
}

Result<int64_t> InotifyFile::ioctl(Task& task, uint32_t command, uint64_t argument) {
    if (command != FIONREAD) {
        return Errno(ENOTTY);
    }
    int32_t bytes = 0;
    {
        MutexLock lock(mu);
        bytes = static_cast<int32_t>(queued_bytes_);
    }
    TRY(task.copy_out(UserPtr<int32_t>(argument), bytes));
    return 0;
}

PollMask InotifyFile::poll() {
    MutexLock lock(mu);
    return events_.empty() ? 0 : EPOLLIN | EPOLLRDNORM;
}

void notify_inode(Inode& inode, std::string_view name, uint32_t mask, uint32_t cookie) {
    InodeExtras* extras = inode.extras_if_any();
    if (extras == nullptr) {
        return;
    }
    std::vector<Path> dropped;  // released without the lock
    MutexLock lock(mu);
    if (extras->marks == nullptr) {
        return;
    }
    std::vector<InotifyMarks::Mark> marks = extras->marks->marks;
    for (const InotifyMarks::Mark& mark : marks) {
        if ((mark.mask & mask & kEventMask) != 0) {
            mark.instance->push_locked({mark.descriptor, mask, cookie, std::string(name)});
        }
        const bool once = (mark.mask & IN_ONESHOT) != 0 && (mark.mask & mask & kEventMask) != 0;
        if (once || (mask & IN_DELETE_SELF) != 0) {
            mark.instance->push_locked({mark.descriptor, IN_IGNORED, 0, {}});
            const auto it = mark.instance->watches_.find(mark.descriptor);
            if (it != mark.instance->watches_.end()) {
                dropped.push_back(std::move(it->second.path));
                mark.instance->watches_.erase(it);
                mark.instance->drop_mark_locked(inode, mark.descriptor);
            }
        }
    }
    lock.unlock();
}

void notify_file_slow(const Dentry& dentry, uint32_t mask) {
    if (dentry.is_negative()) {
        return;
    }
    if (dentry.inode()->is_directory()) {
        mask |= IN_ISDIR;
    }
    notify_inode(*dentry.inode(), {}, mask, 0);
    if (const RefPtr<Dentry> parent = dentry.parent(); parent && !dentry.is_deleted()) {
        notify_inode(*parent->inode(), dentry.name(), mask, 0);
    }
}

uint32_t next_move_cookie() {
    static std::atomic<uint32_t> next{1};
    return next.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace moat::kernel
