#include "kernel/task/container.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/fs/mount.h"
#include "kernel/ipc/ipc_namespace.h"
#include "kernel/task/seccomp_filter.h"
#include "kernel/task/task_table.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

namespace {

/// A list as in cpuset(7), "0-2,5"; all CPUs for an empty or malformed one.
uint64_t mask_of(const std::string& list) {
    uint64_t mask = 0;
    for (const char* at = list.c_str(); *at != '\0';) {
        char* end;
        const unsigned long first = strtoul(at, &end, 10);
        if (end == at) {
            return ~0ull;
        }
        unsigned long last = first;
        if (*end == '-') {
            at = end + 1;
            last = strtoul(at, &end, 10);
            if (end == at) {
                return ~0ull;
            }
        }
        for (unsigned long cpu = first; cpu <= last && cpu < 64; cpu++) {
            mask |= 1ull << cpu;
        }
        at = *end == ',' ? end + 1 : end;
        if (at == end && *end != '\0') {
            return ~0ull;
        }
    }
    return mask != 0 ? mask : ~0ull;
}

}  // namespace

Container::Container(control::ContainerPlan plan, RefPtr<PidNamespace> pids,
                     RefPtr<IpcNamespace> ipc, RefPtr<platform::HostProcess> zygote)
    : plan_(std::move(plan)),
      pids_(std::move(pids)),
      ipc_(std::move(ipc)),
      zygote_(std::move(zygote)),
      pids_limit_(0),
      hostname_(plan_.hostname),
      limits_{0, 0, 100'000, 100, "", 0} {
    change_limits(plan_.limits);
}

Container::~Container() {
    zygote_->drain_pool();
    zygote_->kill();
}

control::ShownLimits Container::limits() const {
    MutexLock lock(mu_);
    return limits_;
}

void Container::change_limits(const control::ShownLimits& changes) {
    MutexLock lock(mu_);
    const auto change = [](auto& field, const auto& value) {
        if (value) {
            field = value;
        }
    };
    change(limits_.memory_bytes, changes.memory_bytes);
    change(limits_.cpu_quota_us, changes.cpu_quota_us);
    change(limits_.cpu_period_us, changes.cpu_period_us);
    change(limits_.cpu_weight, changes.cpu_weight);
    change(limits_.cpus, changes.cpus);
    change(limits_.pids, changes.pids);
    pids_limit_.store(*limits_.pids, std::memory_order_relaxed);
    cpu_mask_.store(mask_of(*limits_.cpus), std::memory_order_relaxed);
}

uint64_t Container::oom_kills() const {
    if (!oom_count_) {
        return 0;
    }
    char text[1024];
    const ssize_t n = ::pread(oom_count_.get(), text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    // The file begins with another line in both versions of cgroups.
    const char* const found = strstr(text, "\noom_kill ");
    return found == nullptr ? 0 : strtoull(found + sizeof "\noom_kill " - 1, nullptr, 10);
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

void Container::set_seccomp(RefPtr<const SeccompFilter> filter) { seccomp_ = std::move(filter); }

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
