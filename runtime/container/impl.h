#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cgroups/cgroup.h"
#include "runtime/container/state.h"
#include "runtime/rootfs/mounts.h"
#include "runtime/sandbox/control_client.h"
#include "runtime/sentry_runtime.h"

namespace moat::runtime {

/// What SentryRuntime's verbs share. Safe to use from several threads: what changes is in the state
/// directories, under their locks.
struct SentryRuntime::Impl {
    explicit Impl(Options o) : options(std::move(o)) {}

    const Options options;

    /// The machine's cgroups, looked up once.
    Result<const cgroups::Manager*> manager();
    /// Connects to the sentry of a sandbox. ECONNRESET if it is gone.
    Result<ControlClient> connect(const std::string& sandbox_id);
    /// One request about a container; loads its record for the sandbox's id.
    Result<control::Json> call(const std::string& id, const std::string& method,
                               control::Json fields = control::Json::object(),
                               const std::vector<NamedFd>& fds = {});
    Result<Record> load(const std::string& id);
    /// Containers (not the sandbox itself) that live in the sandbox.
    Result<std::vector<std::string>> members(const std::string& sandbox_id);
    /// A `signal` request. ESRCH when it does not run.
    Status signal(const std::string& id, control::Json fields);
    /// The container's state as the sentry tells it, or as the record must have it when there is
    /// none.
    Result<ContainerInfo> info(const StateDirectory& directory, const Record& record);
    /// Lets a paused container's processes run again, so that they can be killed.
    Status thaw(const StateDirectory& directory, Record& record);
    /// Undoes everything that the record says, in reverse order; what is gone already is success.
    /// The directory goes last, and only if everything else went.
    Status tear_down(const StateDirectory& directory, Record& record);

  private:
    std::mutex manager_mutex_;  // leaf: nothing of kernel/ is locked under it
    std::unique_ptr<cgroups::Manager> manager_;
};

/// Tells Options::observe, if it is set, how long it lived.
class Phase {
  public:
    Phase(const Options& options, const char* name)
        : options_(options), name_(name), start_(std::chrono::steady_clock::now()) {}
    ~Phase() {
        if (options_.observe) {
            options_.observe(
                name_,
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
        }
    }
    Phase(const Phase&) = delete;
    Phase& operator=(const Phase&) = delete;

  private:
    const Options& options_;
    const char* name_;
    const std::chrono::steady_clock::time_point start_;
};

/// Everything that creates: one object for one create() or create_sandbox(), torn down unless done.
struct Launch {
    SentryRuntime::Impl& impl;
    StateDirectory directory;
    Record record;
};

/// The program beside ours unless `configured`, opened for execution.
Result<ScopedFd> open_program(const std::string& configured, const char* name);

struct SentryConfig {
    control::SandboxPlan plan;
    std::string network_namespace;  ///< joined if set
    bool new_network_namespace = false;
    cgroups::Limits limits;  ///< of the pod's cgroup
    std::string cgroup;      ///< the pod's
    std::vector<int>
        guest_cgroup_fds;  ///< borrowed; which its guests join, if it is to be them all
};
/// Makes the pod's cgroups and starts the sentry in `<pod>/sentry`; it does not wait for it.
Status start_sentry(Launch& launch, const SentryConfig& config);
/// The first request: done when the sentry is confined and ready. With `plan.exit_with` it also
/// gets the file that StateDirectory::recorded_exit() reads.
Status boot_sentry(Launch& launch, const control::SandboxPlan& plan);
/// Starts the container's gofer in `cgroup`; returns the sentry's end of its socket.
Result<ScopedFd> start_gofer(Launch& launch, const gofer::GoferPlan& plan,
                             const std::string& cgroup);

/// A pty of the host whose slave is in raw mode, since the guest has a line discipline of its own.
struct Pty {
    ScopedFd master;
    ScopedFd slave;
};
Result<Pty> open_pty();
/// OCI: the master goes to whoever listens on the socket at `path`.
Status send_console(const std::string& path, int master);

control::ProcessPlan plan_process(const SpecProcess& process);
/// Says in `plan` where the streams go and names the descriptors that must travel with it.
Result<std::vector<NamedFd>> plan_stdio(const Stdio& stdio, control::ProcessPlan& plan);
cgroups::Limits limits_of(const Resources& resources);
/// Changed limits of a pod's own cgroup. Kubelet tells the runtime of a larger quota before it
/// gives it to the pod's cgroup above, and v1's kernel refuses a child more than what is above it
/// (kernel/sched/core.c: tg_cfs_schedulable_down). It gets no quota of its own then: the one above
/// holds, now and when it has grown.
cgroups::Limits within_parent(const cgroups::Manager& manager, const std::string& cgroup,
                              cgroups::Limits limits);
/// The smallest memory limit of the cgroups above this one, 0 if none has one.
uint64_t memory_limit_above(const cgroups::Manager& manager, const std::string& cgroup);
/// The same for guests' eyes. Limits that say nothing change nothing.
control::ShownLimits shown(const cgroups::Limits& limits);
/// What the host's cgroup gets for so many guest tasks (see the README); -1 for no limit.
int64_t host_pids(int64_t guest_pids);
/// Sets /proc/PID/oom_score_adj of all that runs in the cgroup, and so of all that it will ever
/// start. As far as the host lets us: it lowers nothing without CAP_SYS_RESOURCE.
void set_oom_score(const cgroups::Manager& manager, const std::string& cgroup, int value);
/// The caller's own, which a container has that asks for none.
int own_oom_score();
/// OCI's state object.
std::string oci_state_json(const ContainerInfo& info);
int64_t now_ns();

}  // namespace moat::runtime
