#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/control/plan.h"
#include "kernel/platform/host_process.h"

namespace moat::kernel {

class FsContext;
class MountNamespace;
class PidNamespace;
class ThreadGroup;

/// One container of the pod: its processes, their numbers, their files and their limit. Made by the
/// control server from a plan; lives until it is destroyed there.
class Container final : public RefCounted {
  public:
    Container(control::ContainerPlan plan, RefPtr<PidNamespace> pids,
              RefPtr<platform::HostProcess> zygote);
    ~Container() override;

    const std::string& id() const { return plan_.id; }
    const control::ContainerPlan& plan() const { return plan_; }
    PidNamespace& pid_namespace() const { return *pids_; }
    const RefPtr<PidNamespace>& pid_namespace_ref() const { return pids_; }
    platform::HostProcess& zygote() const { return *zygote_; }
    RefPtr<MountNamespace> mounts() const;
    void set_mounts(RefPtr<MountNamespace> mounts);

    std::string hostname() const;
    void set_hostname(std::string name);
    std::string domainname() const;
    void set_domainname(std::string name);

    /// Counts a task in against the pids limit. EAGAIN.
    Status charge_task();
    void release_task() { tasks_.fetch_sub(1, std::memory_order_relaxed); }
    uint64_t task_count() const { return tasks_.load(std::memory_order_relaxed); }
    uint64_t pids_limit() const { return pids_limit_.load(std::memory_order_relaxed); }
    void set_pids_limit(uint64_t limit) { pids_limit_.store(limit, std::memory_order_relaxed); }

    /// The first process; orphans become its children. Null before start and after its end.
    RefPtr<ThreadGroup> init() const;
    void set_init(RefPtr<ThreadGroup> init);

  private:
    const control::ContainerPlan plan_;
    const RefPtr<PidNamespace> pids_;
    const RefPtr<platform::HostProcess> zygote_;
    std::atomic<uint64_t> tasks_{0};
    std::atomic<uint64_t> pids_limit_;
    mutable Mutex<LockRank::kFsContext> mu_;
    RefPtr<MountNamespace> mounts_ GUARDED_BY(mu_);
    std::string hostname_ GUARDED_BY(mu_);
    std::string domainname_ GUARDED_BY(mu_) = "(none)";
    RefPtr<ThreadGroup> init_ GUARDED_BY(mu_);
};

}  // namespace moat::kernel
