#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/control/plan.h"
#include "kernel/platform/host_process.h"

namespace moat::kernel {

class FsContext;
class IpcNamespace;
class MountNamespace;
class PidNamespace;
class SeccompFilter;
class ThreadGroup;

/// One container of the pod: its processes, their numbers, their files and their limit. Made by the
/// control server from a plan; lives until it is destroyed there and its last process is gone.
class Container final : public RefCounted {
  public:
    Container(control::ContainerPlan plan, RefPtr<PidNamespace> pids, RefPtr<IpcNamespace> ipc,
              RefPtr<platform::HostProcess> zygote);
    ~Container() override;

    const std::string& id() const { return plan_.id; }
    const control::ContainerPlan& plan() const { return plan_; }
    PidNamespace& pid_namespace() const { return *pids_; }
    const RefPtr<PidNamespace>& pid_namespace_ref() const { return pids_; }
    IpcNamespace& ipc() const { return *ipc_; }
    platform::HostProcess& zygote() const { return *zygote_; }
    RefPtr<MountNamespace> mounts() const;
    void set_mounts(RefPtr<MountNamespace> mounts);

    /// The profile of all its processes, exec'ed ones too; null: none. Set before the first.
    const RefPtr<const SeccompFilter>& seccomp() const { return seccomp_; }
    void set_seccomp(RefPtr<const SeccompFilter> filter);
    std::string hostname() const;
    void set_hostname(std::string name);
    std::string domainname() const;
    void set_domainname(std::string name);

    /// Counts a task in against the pids limit. EAGAIN.
    Status charge_task();
    void release_task() { tasks_.fetch_sub(1, std::memory_order_relaxed); }
    uint64_t task_count() const { return tasks_.load(std::memory_order_relaxed); }
    uint64_t pids_limit() const { return pids_limit_.load(std::memory_order_relaxed); }

    /// What its guests are told of the host's limits; every field has a value.
    control::ShownLimits limits() const;
    void change_limits(const control::ShownLimits& changes);
    /// The CPUs that its guests may ask for, bit N being CPU N; those from 64 on are not told
    /// apart.
    uint64_t cpu_mask() const { return cpu_mask_.load(std::memory_order_relaxed); }

    /// How many of its processes the host has killed for want of memory. The host counts before it
    /// kills, so whoever has seen the death sees it counted. 0 without a memory controller.
    uint64_t oom_kills() const;
    /// Before any process of it runs.
    void set_oom_count(ScopedFd file) { oom_count_ = std::move(file); }

    /// The first process; orphans become its children. Null before start, and when the container is
    /// destroyed: until then they hold each other.
    RefPtr<ThreadGroup> init() const;
    void set_init(RefPtr<ThreadGroup> init);

  private:
    const control::ContainerPlan plan_;
    const RefPtr<PidNamespace> pids_;
    const RefPtr<IpcNamespace> ipc_;
    const RefPtr<platform::HostProcess> zygote_;
    RefPtr<const SeccompFilter> seccomp_;  // immutable once a process runs
    std::atomic<uint64_t> tasks_{0};
    std::atomic<uint64_t> pids_limit_;
    std::atomic<uint64_t> cpu_mask_{~0ull};
    ScopedFd oom_count_;  // immutable once processes run
    mutable Mutex<LockRank::kFsContext> mu_;
    RefPtr<MountNamespace> mounts_ GUARDED_BY(mu_);
    std::string hostname_ GUARDED_BY(mu_);
    std::string domainname_ GUARDED_BY(mu_) = "(none)";
    RefPtr<ThreadGroup> init_ GUARDED_BY(mu_);
    control::ShownLimits limits_ GUARDED_BY(mu_);
};

}  // namespace moat::kernel
