#include "kernel/task/container.h"

#include "kernel/fs/mount.h"
#include "kernel/task/task_table.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

Container::Container(control::ContainerPlan plan, RefPtr<PidNamespace> pids,
                     RefPtr<platform::HostProcess> zygote)
    : plan_(std::move(plan)),
      pids_(std::move(pids)),
      zygote_(std::move(zygote)),
      pids_limit_(plan_.pids_limit),
      hostname_(plan_.hostname) {}

Container::~Container() {
    zygote_->drain_pool();
    zygote_->kill();
}

RefPtr<MountNamespace> Container::mounts() const {
    MutexLock lock(mu_);
    return mounts_;
}

void Container::set_mounts(RefPtr<MountNamespace> mounts) {
    MutexLock lock(mu_);
    std::swap(mounts_, mounts);
    lock.unlock();
}

std::string Container::hostname() const {
    MutexLock lock(mu_);
    return hostname_;
}

void Container::set_hostname(std::string name) {
    MutexLock lock(mu_);
    hostname_ = std::move(name);
}

std::string Container::domainname() const {
    MutexLock lock(mu_);
    return domainname_;
}

void Container::set_domainname(std::string name) {
    MutexLock lock(mu_);
    domainname_ = std::move(name);
}

Status Container::charge_task() {
    const uint64_t limit = pids_limit();
    if (tasks_.fetch_add(1, std::memory_order_relaxed) >= limit && limit != 0) {
        release_task();
        return Errno(EAGAIN);
    }
    return {};
}

RefPtr<ThreadGroup> Container::init() const {
    MutexLock lock(mu_);
    return init_;
}

void Container::set_init(RefPtr<ThreadGroup> init) {
    MutexLock lock(mu_);
    std::swap(init_, init);
    lock.unlock();
}

}  // namespace moat::kernel
