#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/fd_table.h"
#include "kernel/fs/file.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

class EpollCore;

/// One watched file of an epoll instance (Linux: struct epitem). Known to three: the instance
/// (owner), the file's wait queue, and the table of what watches which file. Removed by whoever
/// comes first: EPOLL_CTL_DEL, the end of the instance, or the end of the file.
class EpollItem final : public Waiter {
  public:
    EpollItem(RefPtr<EpollCore> core, File& file, Fd fd);
    ~EpollItem() override;
    void on_event(PollMask mask) override;

  private:
    friend class EpollCore;
    friend class EpollFile;
    friend class EpollTopology;

    const RefPtr<EpollCore> core_;
    const Fd fd_;
    const RefPtr<EpollCore> child_;  // the watched file is itself an epoll instance
    // Under the core's lock. The file is not owned: its last_unref() takes it away from here before
    // it dies, so that under the lock a non-null pointer may be given to try_ref().
    File* file_;
    uint32_t events_ = 0;
    uint64_t data_ = 0;
    uint64_t generation_ = 0;  // counts EPOLL_CTL_MOD
    bool is_ready_ = false;
    EpollItem* previous_ready_ = nullptr;
    EpollItem* next_ready_ = nullptr;
};

/// The state of an epoll instance, apart from its description so that events under way when the
/// last descriptor goes find something to look at. Holds its items, they hold it; close() cuts the
/// circle.
class EpollCore final : public RefCounted {
  public:
    EpollCore() = default;
    ~EpollCore() override;

    /// epoll_ctl(2). `self` is the instance's own description. EEXIST, ENOENT, EPERM, EINVAL,
    /// ELOOP, ENOSPC.
    Status control(File& self, int operation, RefPtr<File> target, Fd fd, const epoll_event& event);

    /// Events of one look at the ready list; see EpollCore::take().
    class Batch;

    size_t ready_count();
    void close();

    WaitQueue& waiters() { return waiters_; }
    WaitQueue& pollers() { return pollers_; }

  private:
    friend class EpollItem;
    friend class EpollTopology;
    friend class EpollFile;

    using Key = std::pair<File*, Fd>;

    Status add(RefPtr<File> target, Fd fd, const epoll_event& event);
    Status modify(RefPtr<File> target, Fd fd, const epoll_event& event);
    Status remove(RefPtr<File> target, Fd fd);
    /// Marks an item ready if the file is; for a new or changed one.
    void look(EpollItem& item, File& file);
    void wake();
    void watch(EpollItem& item, WaitQueue& queue, uint32_t events);

    void link_ready_locked(EpollItem& item) REQUIRES(mu_);
    void unlink_ready_locked(EpollItem& item) REQUIRES(mu_);
    /// Takes the item out of the instance; it no longer has a file.
    void detach_locked(EpollItem& item) REQUIRES(mu_);

    mutable Mutex<LockRank::kEpoll> mu_;
    std::map<Key, RefPtr<EpollItem>> items_ GUARDED_BY(mu_);
    EpollItem* first_ready_ GUARDED_BY(mu_) = nullptr;
    EpollItem* last_ready_ GUARDED_BY(mu_) = nullptr;
    size_t ready_count_ GUARDED_BY(mu_) = 0;
    std::vector<EpollCore*> parents_;  // under the topology's lock; instances that watch this one
    WaitQueue waiters_;                // epoll_wait(2)
    WaitQueue pollers_;                // poll(2) of the instance, instances that watch it
};

/// Up to kSize items taken off the ready list, asked without a lock, and settled.
class EpollCore::Batch {
  public:
    static constexpr size_t kSize = 32;
    enum class Settle : uint8_t {
        kDelivered,  ///< the caller has the events: one-shot items are disarmed, edges are used up
        kOnlyAsked,  ///< what is ready stays ready
    };

    explicit Batch(EpollCore& core) : core_(core) {}
    /// Takes at most `max` items and asks their files. Returns how many items were taken, whether
    /// or not they turned out ready.
    size_t take(size_t max);
    /// Those that are ready.
    const epoll_event* events() const { return events_; }
    size_t event_count() const { return event_count_; }
    void settle(Settle how);

  private:
    struct Taken {
        RefPtr<EpollItem> item;
        RefPtr<File> file;
        uint32_t wanted = 0;
        uint64_t data = 0;
        uint64_t generation = 0;
        uint32_t ready = 0;
    };
    EpollCore& core_;
    Taken taken_[kSize];
    epoll_event events_[kSize];
    size_t count_ = 0;
    size_t event_count_ = 0;
};

/// The description of an epoll instance (epoll(7)).
class EpollFile final : public File {
  public:
    EpollFile();
    ~EpollFile() override;

    EpollCore& core() const { return *core_; }
    RefPtr<EpollCore> core_ref() const { return core_; }

    std::string anonymous_name() const override { return "anon_inode:[eventpoll]"; }
    Result<struct stat> stat(Task& task) override;
    PollMask poll() override;
    WaitQueue* wait_queue() override { return &core_->pollers(); }
    /// The watched descriptors, for /proc/PID/fdinfo.
    struct Watch {
        Fd fd;
        uint32_t events;
        uint64_t data;
    };
    std::vector<Watch> watches() const;

  private:
    const RefPtr<EpollCore> core_;
};

}  // namespace moat::kernel
