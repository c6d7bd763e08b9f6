#include "kernel/task/fs_context.h"

#include "kernel/fs/mount.h"

namespace moat::kernel {

FsContext::FsContext(RefPtr<MountNamespace> mounts, Path root, Path cwd, uint32_t umask)
    : mounts_(std::move(mounts)), root_(std::move(root)), cwd_(std::move(cwd)), umask_(umask) {}

FsContext::~FsContext() = default;

RefPtr<FsContext> FsContext::clone() const {
    MutexLock lock(mu_);
    return make_ref<FsContext>(mounts_, root_, cwd_, umask_);
}

Path FsContext::root() const {
    MutexLock lock(mu_);
    return root_;
}

Path FsContext::cwd() const {
    MutexLock lock(mu_);
    return cwd_;
}

// What is replaced goes with the argument, after the lock.
void FsContext::set_root(Path root) {
    MutexLock lock(mu_);
    std::swap(root_, root);
}

void FsContext::set_cwd(Path cwd) {
    MutexLock lock(mu_);
    std::swap(cwd_, cwd);
}

uint32_t FsContext::umask() const {
    MutexLock lock(mu_);
    return umask_;
}

uint32_t FsContext::set_umask(uint32_t umask) {
    MutexLock lock(mu_);
    return std::exchange(umask_, umask & 0777);
}

MountNamespace& FsContext::mounts() const {
    MutexLock lock(mu_);
    return *mounts_;
}

RefPtr<MountNamespace> FsContext::mounts_ref() const {
    MutexLock lock(mu_);
    return mounts_;
}

void FsContext::set_mounts(RefPtr<MountNamespace> mounts) {
    MutexLock lock(mu_);
    std::swap(mounts_, mounts);
    lock.unlock();
}

}  // namespace moat::kernel
