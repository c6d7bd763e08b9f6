#include "kernel/fs/inode.h"

#include <sys/sysmacros.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/inode_extras.h"
#include "kernel/fs/inotify/inotify.h"

namespace moat::kernel {

FileSystem::FileSystem() {
    static std::atomic<uint32_t> next{1};
    device_ = makedev(0, next.fetch_add(1, std::memory_order_relaxed));
}

FileSystem::~FileSystem() = default;

Status Inode::begin_writing() {
    int32_t now = writers_.load(std::memory_order_relaxed);
    do {
        if (now < 0) {
            return Errno(ETXTBSY);
        }
    } while (!writers_.compare_exchange_weak(now, now + 1, std::memory_order_relaxed));
    return {};
}

Status Inode::begin_executing() {
    int32_t now = writers_.load(std::memory_order_relaxed);
    do {
        if (now > 0) {
            return Errno(ETXTBSY);
        }
    } while (!writers_.compare_exchange_weak(now, now - 1, std::memory_order_relaxed));
    return {};
}

InodeExtras::InodeExtras() = default;
InodeExtras::~InodeExtras() = default;

RefPtr<RefCounted> InodeExtras::attached() const {
    MutexLock lock(mu_);
    return attached_;
}

RefPtr<RefCounted> InodeExtras::attach(RefPtr<RefCounted> object) {
    MutexLock lock(mu_);
    if (!attached_) {
        attached_ = object;
    }
    RefPtr<RefCounted> now = attached_;
    lock.unlock();
    return now;
}

void InodeExtras::detach(const RefCounted* object) {
    RefPtr<RefCounted> dropped;
    MutexLock lock(mu_);
    if (attached_.get() == object) {
        std::swap(dropped, attached_);
    }
    lock.unlock();
}

Inode::~Inode() { delete extras_.load(std::memory_order_acquire); }

InodeExtras& Inode::extras() {
    InodeExtras* extras = extras_.load(std::memory_order_acquire);
    if (extras == nullptr) {
        auto* made = new InodeExtras();
        if (extras_.compare_exchange_strong(extras, made, std::memory_order_acq_rel)) {
            extras = made;
        } else {
            delete made;
        }
    }
    return *extras;
}

Result<InodeOwner> Inode::owner() {
    const InodeAttributes a = TRY(attributes());
    return InodeOwner{a.mode, a.uid, a.gid};
}

Result<RefPtr<Inode>> Inode::lookup(Task&, std::string_view) { return Errno(ENOTDIR); }

Status Inode::walk(Task& task, const std::vector<std::string_view>& names, Intent,
                   std::vector<RefPtr<Inode>>& found) {
    found.push_back(TRY(lookup(task, names.front())));
    return {};
}

// A file system that has none of these is one where nothing can be made: Linux's answer is EPERM,
// from a missing i_op.
Result<RefPtr<Inode>> Inode::create(Task&, std::string_view, const NewInode&) {
    return Errno(is_directory() ? EACCES : ENOTDIR);  // Linux: vfs_create without i_op->create
}
Result<RefPtr<Inode>> Inode::make_directory(Task&, std::string_view, const NewInode&) {
    return Errno(is_directory() ? EPERM : ENOTDIR);
}
Result<RefPtr<Inode>> Inode::make_symlink(Task&, std::string_view, std::string_view,
                                          const NewInode&) {
    return Errno(is_directory() ? EPERM : ENOTDIR);
}
Result<RefPtr<Inode>> Inode::create_unnamed(Task&, const NewInode&) { return Errno(EOPNOTSUPP); }
Status Inode::link(Task&, std::string_view, Inode&) { return Errno(EPERM); }
Status Inode::unlink(Task&, std::string_view, Inode&) { return Errno(EPERM); }
Status Inode::remove_directory(Task&, std::string_view, Inode&) { return Errno(EPERM); }
Status Inode::rename(Task&, std::string_view, Inode&, std::string_view, uint32_t) {
    return Errno(EPERM);
}
Result<std::string> Inode::read_link(Task&) { return Errno(EINVAL); }
Result<std::string> Inode::get_xattr(Task&, const std::string&) { return Errno(EOPNOTSUPP); }
Status Inode::set_xattr(Task&, const std::string&, std::string_view, int) {
    return Errno(EOPNOTSUPP);
}
Status Inode::remove_xattr(Task&, const std::string&) { return Errno(EOPNOTSUPP); }
Result<std::vector<std::string>> Inode::list_xattrs(Task&) { return std::vector<std::string>(); }

}  // namespace moat::kernel
