#include <fcntl.h>
#include <sys/xattr.h>

#include "kernel/fs/registry.h"
#include "kernel/fs/tmpfs/tmpfs.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

namespace {
/// What one inode may hold in xattrs; they lie in the sentry's memory.
constexpr size_t kMaxXattrBytes = 128 << 10;
}  // namespace

TmpfsInode::TmpfsInode(TmpfsFileSystem& fs, const NewInode& what)
    : Inode(fs, what.mode),
      ino_(fs.next_ino_.fetch_add(1, std::memory_order_relaxed)),
      rdev_(what.rdev),
      mode_(what.mode),
      uid_(what.uid),
      gid_(what.gid) {
    atime_ = mtime_ = ctime_ = btime_ = realtime();
}

TmpfsInode::~TmpfsInode() { tmpfs().inodes_.fetch_sub(1, std::memory_order_relaxed); }

// The last reference to a directory is the last to what is in it: taken down in a loop, for a guest
// can nest directories deeper than our stack is.
void TmpfsInode::last_unref() {
    static thread_local std::vector<TmpfsInode*>* queue = nullptr;
    if (queue != nullptr) {
        queue->push_back(this);
        return;
    }
    std::vector<TmpfsInode*> pending{this};
    queue = &pending;
    while (!pending.empty()) {
        TmpfsInode* inode = pending.back();
        pending.pop_back();
        delete inode;
    }
    queue = nullptr;
}

Result<InodeAttributes> TmpfsInode::attributes() {
    InodeAttributes a;
    a.size = size_now();
    a.blocks = blocks_now();
    a.ino = ino_;
    a.rdev = rdev_;
    a.nlink = nlink();
    MutexLock lock(mu_);
    a.mode = mode_;
    a.uid = uid_;
    a.gid = gid_;
    a.atime = atime_;
    a.mtime = mtime_;
    a.ctime = ctime_;
    a.btime = btime_;
    return a;
}

Result<InodeOwner> TmpfsInode::owner() {
    MutexLock lock(mu_);
    return InodeOwner{mode_, uid_, gid_};
}

Status TmpfsInode::set_attributes(const AttributeChange& change) {
    if (change.size) {
        TRY(set_size(*change.size));
    }
    MutexLock lock(mu_);
    if (change.mode) {
        mode_ = (mode_ & S_IFMT) | (*change.mode & 07777);
    }
    if (change.uid) {
        uid_ = *change.uid;
    }
    if (change.gid) {
        gid_ = *change.gid;
    }
    if (change.atime) {
        atime_ = *change.atime;
    }
    if (change.mtime) {
        mtime_ = *change.mtime;
    }
    ctime_ = realtime();
    return {};
}

void TmpfsInode::set_times(timespec atime, timespec mtime) {
    MutexLock lock(mu_);
    atime_ = atime;
    mtime_ = mtime;
}

void TmpfsInode::touch_accessed() {
    // relatime: only the first read after a change moves the time.
    if (!atime_stale_.load(std::memory_order_relaxed) ||
        !atime_stale_.exchange(false, std::memory_order_relaxed)) {
        return;
    }
    MutexLock lock(mu_);
    atime_ = realtime();
}

void TmpfsInode::touch_modified() {
    atime_stale_.store(true, std::memory_order_relaxed);
    MutexLock lock(mu_);
    mtime_ = ctime_ = realtime();
}

void TmpfsInode::touch_changed() {
    MutexLock lock(mu_);
    ctime_ = realtime();
}

Result<RefPtr<File>> TmpfsInode::open(Task& task, const Path& path, uint32_t flags) {
    return open_special(task, *this, path, rdev_, flags);
}

Result<std::string> TmpfsInode::get_xattr(Task&, const std::string& name) {
    if (name.starts_with("system.")) {
        return Errno(EOPNOTSUPP);
    }
    MutexLock lock(mu_);
    if (xattrs_ != nullptr) {
        if (const auto it = xattrs_->find(name); it != xattrs_->end()) {
            return it->second;
        }
    }
    return Errno(ENODATA);
}

Status TmpfsInode::set_xattr(Task&, const std::string& name, std::string_view value, int flags) {
    if (name.starts_with("system.")) {
        return Errno(EOPNOTSUPP);  // POSIX ACLs: not built
    }
    MutexLock lock(mu_);
    if (xattrs_ == nullptr) {
        xattrs_ = std::make_unique<std::map<std::string, std::string>>();
    }
    size_t bytes = name.size() + value.size();
    for (const auto& [key, held] : *xattrs_) {
        bytes += key == name ? 0 : key.size() + held.size();
    }
    if (bytes > kMaxXattrBytes) {
        return Errno(ENOSPC);
    }
    const auto it = xattrs_->find(name);
    if (it == xattrs_->end() && (flags & XATTR_REPLACE) != 0) {
        return Errno(ENODATA);
    }
    if (it != xattrs_->end() && (flags & XATTR_CREATE) != 0) {
        return Errno(EEXIST);
    }
    xattrs_->insert_or_assign(name, std::string(value));
    ctime_ = realtime();
    return {};
}

Status TmpfsInode::remove_xattr(Task&, const std::string& name) {
    MutexLock lock(mu_);
    if (xattrs_ == nullptr || xattrs_->erase(name) == 0) {
        return Errno(name.starts_with("system.") ? EOPNOTSUPP : ENODATA);
    }
    ctime_ = realtime();
    return {};
}

Result<std::vector<std::string>> TmpfsInode::list_xattrs(Task&) {
    std::vector<std::string> names;
    MutexLock lock(mu_);
    if (xattrs_ != nullptr) {
        for (const auto& [name, value] : *xattrs_) {
            names.push_back(name);
        }
    }
    return names;
}

}  // namespace moat::kernel
