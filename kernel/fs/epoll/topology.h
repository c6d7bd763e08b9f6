#pragma once

#include <unordered_map>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/fs/epoll/epoll.h"

namespace moat::kernel {

/// Which epoll items watch which file, for all of the sandbox: what a dying file has to be taken
/// out of, and how instances are nested. One lock, taken by epoll_ctl(2) and by the end of watched
/// files.
class EpollTopology {
  public:
    static constexpr int kMaxNesting = 4;           // Linux: EP_MAX_NESTS
    static constexpr size_t kMaxWatches = 1 << 20;  // Linux: fs.epoll.max_user_watches

    static EpollTopology& instance();

    /// Enters `item`, whose file the caller holds. ELOOP: the nesting would be circular or too
    /// deep; ENOSPC: too many items.
    Status enter(EpollItem& item, File& file);
    void leave(EpollItem& item, File& file);
    /// The last reference to `file` is gone: takes it out of every instance. From
    /// File::last_unref().
    void forget(File& file);
    static bool is_watched(const File& file) {
        return file.epolled_.load(std::memory_order_acquire);
    }

  private:
    int depth_below_locked(EpollCore& core, EpollCore& forbidden, int limit) REQUIRES(mu_);
    int depth_above_locked(EpollCore& core, int limit) REQUIRES(mu_);
    void drop_parent_locked(EpollItem& item) REQUIRES(mu_);

    Mutex<LockRank::kEpollTopology> mu_;
    std::unordered_map<File*, std::vector<RefPtr<EpollItem>>> watchers_ GUARDED_BY(mu_);
    size_t count_ GUARDED_BY(mu_) = 0;
};

}  // namespace moat::kernel
