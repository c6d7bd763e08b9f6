#include "kernel/fs/directory_file.h"

#include <dirent.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/mount.h"

namespace moat::kernel {

Status DirectoryFile::read_directory(Task& task, DirectorySink& sink) {
    bool fresh = false;
    {
        MutexLock lock(mu_);
        fresh = listed_ && position_ != 0;
    }
    std::vector<DirectoryEntry> entries;
    if (!fresh) {
        // Read from the start: what is there now (POSIX: rewinddir sees the current state). Without
        // the lock, for a gofer's list waits; two threads that start at once both list, one list
        // stays.
        auto listed = list(task);
        if (!listed.ok()) {
            return listed.error();
        }
        entries = std::move(*listed);
    }
    uint64_t own_ino = 0;
    uint64_t parent_ino = 0;
    if (path()) {
        const auto own = path().dentry()->inode()->attributes();
        own_ino = parent_ino = own.ok() ? own->ino : 0;
        // ".." of a mount's root is in the file system below; readers of d_ino for ".." are rare
        // enough that the root of a file system may name itself.
        if (const RefPtr<Dentry> parent = path().dentry()->parent()) {
            const auto up = parent->inode()->attributes();
            parent_ino = up.ok() ? up->ino : own_ino;
        }
    }
    MutexLock lock(mu_);
    if (!fresh && (!listed_ || position_ == 0)) {
        entries_.swap(entries);
        listed_ = true;
    }
    // Offsets: 0 ".", 1 "..", 2 + i entry i; the position after an entry is one more.
    const auto end = static_cast<int64_t>(entries_.size()) + 2;
    while (position_ < end) {
        bool taken;
        if (position_ == 0) {
            taken = sink.add(".", own_ino, DT_DIR, 1);
        } else if (position_ == 1) {
            taken = sink.add("..", parent_ino, DT_DIR, 2);
        } else {
            const DirectoryEntry& e = entries_[static_cast<size_t>(position_ - 2)];
            taken = sink.add(e.name, e.ino, e.type, position_ + 1);
        }
        if (!taken) {
            break;
        }
        position_++;
    }
    return {};
}

Result<int64_t> DirectoryFile::seek(Task&, int64_t offset, int whence) {
    MutexLock lock(mu_);
    int64_t base = 0;
    if (whence == SEEK_CUR) {
        base = position_;
    } else if (whence == SEEK_END) {
        base = static_cast<int64_t>(entries_.size()) + 2;
    } else if (whence != SEEK_SET) {
        return Errno(EINVAL);
    }
    int64_t target;
    if (__builtin_add_overflow(base, offset, &target) || target < 0) {
        return Errno(EINVAL);
    }
    position_ = target;
    return target;
}

}  // namespace moat::kernel
