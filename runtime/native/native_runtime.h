#pragma once

// Pods on the node's own kernel, by an installed runc or crun: for what must see the node (network
// and storage drivers, kubelet's other system pods). A pod's namespaces are held by a process
// `moat-pause`; one process `moat-monitor` stands by each container and lives without moatd. A
// created container is its root, its configuration and its monitor: runc is called when it starts,
// as containerd does. All state is below `state_root`:
//   pods/ID/record.json, events/       what was made; CONTAINER.monitor and CONTAINER.exit
//   containers/ID/record.json, control.sock, starting, pid, init, monitor.log, runc.log
//   runc/                              the program's own
// A container's root is an overlay, mounted at `rootfs` in its bundle; what it writes is in
// `upper`.

#include <mutex>

#include "cgroups/cgroup.h"
#include "runtime/native/record.h"
#include "runtime/runtime.h"

namespace moat::runtime {

class NativeRuntime final : public Runtime {
  public:
    struct Options {
        std::string state_root;
        std::string program;       ///< runc or crun
        std::string monitor_path;  ///< empty: moat-monitor beside the running executable
        std::string pause_path;    ///< empty: moat-pause beside it
    };
    /// `configured`, or the first of runc and crun on PATH and in the usual places. ENOENT.
    static Result<std::string> find_program(const std::string& configured);

    /// Whether the program can map the ids of a mount (runc 1.2, crun 1.9), which containers in a
    /// user namespace need. One that does not say so (`features`, runc 1.1) cannot.
    static bool has_id_mapped_mounts(const std::string& program);

    explicit NativeRuntime(Options options);
    ~NativeRuntime() override;

    Status create_sandbox(const SandboxConfig& config) override;
    Status destroy_sandbox(const std::string& id) override;
    Status create(const CreateConfig& config) override;
    Status start(const std::string& id) override;
    Result<ContainerInfo> state(const std::string& id) override;
    Status kill(const std::string& id, int signal, bool all = false) override;
    Status remove(const std::string& id, bool force = false) override;
    Result<ExitStatus> wait(const std::string& id) override;
    Result<std::string> exec(const std::string& id, const ExecConfig& config) override;
    Result<ExitStatus> wait_exec(const std::string& id, const std::string& exec_id) override;
    Status kill_exec(const std::string& id, const std::string& exec_id, int signal) override;
    Status resize(const std::string& id, const std::string& exec_id, uint16_t rows,
                  uint16_t columns) override;
    Result<std::vector<ProcessInfo>> processes(const std::string& id) override;
    Result<Stats> stats(const std::string& id) override;
    Result<Stats> sandbox_stats(const std::string& sandbox_id) override;
    Status update(const std::string& id, const Resources& resources) override;
    Status pause(const std::string& id) override;
    Status resume(const std::string& id) override;
    Status reopen_log(const std::string& id, int log_fd) override;
    Status attach(const std::string& id, const AttachStdio& stdio) override;
    Result<std::unique_ptr<EventStream>> events(const std::string& sandbox_id) override;
    bool sandbox_alive(const std::string& sandbox_id) override;

  private:
    struct Exec;

    std::string pod_directory(const std::string& id) const;
    std::string container_directory(const std::string& id) const;
    std::string program_root() const { return options_.state_root + "/runc"; }
    std::string events_directory(const std::string& pod_id) const;
    Result<const cgroups::Manager*> manager();
    /// The cgroup's directory in every hierarchy that runc uses: on v1 also in the v2 hierarchy
    /// that some machines have mounted beside.
    Result<std::vector<std::string>> program_directories(const std::string& cgroup);
    Result<NativePod> load_pod(const std::string& id) const;
    Result<NativeContainer> load_container(const std::string& id) const;
    /// The same; one that is being started (for a moatd that was killed meanwhile) is waited for.
    Result<NativeContainer> settled_container(const std::string& id) const;
    Status tear_down(const NativeContainer& container);
    /// Kills a container whose monitor is gone and writes its exit status.
    Status settle_lost_monitor(const NativeContainer& container);
    /// Returns the limits that are not left to the program.
    Status prepare(const CreateConfig& config, NativeContainer& container, const NativePod& pod);
    Status start_monitor(const CreateConfig& config, const NativeContainer& container);
    /// The container's first process; ESRCH when it does not run.
    Result<ProcessRef> init(const NativeContainer& container) const;
    Status ask_monitor(const std::string& id, const std::string& request,
                       const std::vector<int>& fds, int timeout_ms = 10'000);
    Result<std::shared_ptr<Exec>> find_exec(const std::string& exec_id);

    const Options options_;
    std::mutex mu_;
    std::unique_ptr<cgroups::Manager> manager_;  ///< guarded by mu_
    std::string v2_beside_;                      ///< where v2 is mounted beside v1; guarded by mu_
    std::map<std::string, std::shared_ptr<Exec>> execs_;  ///< guarded by mu_
    uint64_t next_exec_ = 0;                              ///< guarded by mu_
};

}  // namespace moat::runtime
