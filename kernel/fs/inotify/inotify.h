#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/fs/dentry.h"
#include "kernel/fs/file.h"

namespace moat::kernel {

class InotifyFile;

/// The watches on one inode, of all instances. Guarded by inotify's one lock. The watch descriptors
/// unregister themselves; the inode stays alive through the instance's dentry.
class InotifyMarks {
  public:
    struct Mark {
        InotifyFile* instance;
        int32_t descriptor;
        uint32_t mask;
    };
    std::vector<Mark> marks;
};

/// inotify(7): an instance, read as a stream of struct inotify_event.
class InotifyFile final : public File {
  public:
    explicit InotifyFile(uint32_t flags);
    ~InotifyFile() override;

    /// EEXIST (IN_MASK_CREATE), ENOSPC (the limit of watches).
    Result<int32_t> add_watch(const Path& path, uint32_t mask);
    /// EINVAL: no such watch.
    Status remove_watch(int32_t descriptor);

    Result<size_t> read(Task& task, IoBuffer& destination) override;
    Result<int64_t> ioctl(Task& task, uint32_t command, uint64_t argument) override;
    PollMask poll() override;
    WaitQueue* wait_queue() override { return &waiters_; }
    std::string anonymous_name() const override { return "anon_inode:inotify"; }

  private:
    friend void notify_inode(Inode&, std::string_view, uint32_t, uint32_t);
    struct Watch {
        Path path;  // keeps the inode and its file system
        uint32_t mask;
    };
    struct Event {
        int32_t descriptor;
        uint32_t mask;
        uint32_t cookie;
        std::string name;
    };
    void push_locked(Event event);
    void drop_mark_locked(Inode& inode, int32_t descriptor);

    std::map<int32_t, Watch> watches_;  // inotify's lock
    std::deque<Event> events_;          // inotify's lock
    size_t queued_bytes_ = 0;
    int32_t next_descriptor_ = 1;
    WaitQueue waiters_;
};

/// How many watches there are; events cost one load when there are none.
extern std::atomic<size_t> inotify_watch_count;

/// Tells the watches of `inode`; `name` is that of the entry concerned if it is a directory.
void notify_inode(Inode& inode, std::string_view name, uint32_t mask, uint32_t cookie);
/// An entry of a directory came, went or was renamed.
inline void notify_entry(const Dentry& directory, std::string_view name, uint32_t mask,
                         uint32_t cookie = 0) {
    if (inotify_watch_count.load(std::memory_order_relaxed) != 0) {
        notify_inode(*directory.inode(), name, mask, cookie);
    }
}
/// Something happened to a file: its own watches and those of its directory are told.
void notify_file_slow(const Dentry& dentry, uint32_t mask);
inline void notify_file(const Path& path, uint32_t mask) {
    if (inotify_watch_count.load(std::memory_order_relaxed) != 0 && path) {
        notify_file_slow(*path.dentry(), mask);
    }
}
uint32_t next_move_cookie();

}  // namespace moat::kernel
