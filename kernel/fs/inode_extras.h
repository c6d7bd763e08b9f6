#pragma once

#include <memory>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/fs/file_locks.h"

namespace moat::kernel {

class InotifyMarks;

/// What is hung on an inode by others than its file system. Owned by the inode.
class InodeExtras {
  public:
    InodeExtras();
    ~InodeExtras();

    FileLocks& locks() { return locks_; }

    /// The object behind the name: the pipe of a FIFO, the socket bound here. Null: none yet.
    RefPtr<RefCounted> attached() const;
    /// Attaches `object` unless something is attached already; returns what is attached now.
    RefPtr<RefCounted> attach(RefPtr<RefCounted> object);
    /// Removes it if it is `object`.
    void detach(const RefCounted* object);

    /// inotify's own (kernel/fs/inotify/); guarded by its lock.
    std::unique_ptr<InotifyMarks> marks;

  private:
    FileLocks locks_;
    mutable Mutex<LockRank::kInodeAttributes> mu_;
    RefPtr<RefCounted> attached_ GUARDED_BY(mu_);
};

}  // namespace moat::kernel
