#pragma once

// Pods with a kernel of their own: what `moat` (the command line) and `moatd` (the CRI server) both
// call. Whichever makes a pod, the other can list it, exec into it or delete it: all state is in
// `state_root/<id>/` (locked by flock while it changes) and in the sentry itself.

#include <functional>
#include <string>

#include "runtime/runtime.h"

namespace moat::runtime {

struct Options {
    std::string state_root = "/run/moat";
    std::string sentry_path;  ///< empty: moat-sentry beside the running executable
    std::string gofer_path;   ///< empty: moat-gofer beside the running executable
    bool strace = false;
    std::string log_level = "info";
    /// Told how long a phase of making a sandbox or a container took: cgroup, sentry, gofer.
    std::function<void(const char* phase, double seconds)> observe;
};

class SentryRuntime final : public Runtime {
  public:
    explicit SentryRuntime(Options options);
    ~SentryRuntime() override;

    Status create_sandbox(const SandboxConfig& config) override;
    Status destroy_sandbox(const std::string& id) override;
    Status check(const CreateConfig& config) override;
    Status create(const CreateConfig& config) override;
    Status start(const std::string& id) override;
    Result<ContainerInfo> state(const std::string& id) override;
    Result<std::vector<ContainerInfo>> list();
    Status kill(const std::string& id, int signal, bool all = false) override;
    /// kill() for somebody at a terminal: an init without a handler is not spared (kill() leaves it
    /// alone, as pid_namespaces(7) has it, unless it is SIGKILL or SIGSTOP).
    Status interrupt(const std::string& id, int signal);
    Status remove(const std::string& id, bool force = false) override;
    Result<ExitStatus> wait(const std::string& id) override;
    Result<std::string> exec(const std::string& id, const ExecConfig& config) override;
    Result<ExitStatus> wait_exec(const std::string& id, const std::string& exec_id) override;
    Status kill_exec(const std::string& id, const std::string& exec_id, int signal) override;
    Status attach(const std::string& id, const AttachStdio& stdio) override;
    Status resize(const std::string& id, const std::string& exec_id, uint16_t rows,
                  uint16_t columns) override;
    Result<std::vector<ProcessInfo>> processes(const std::string& id) override;
    Result<Stats> stats(const std::string& id) override;
    Result<Stats> sandbox_stats(const std::string& sandbox_id) override;
    Status update(const std::string& id, const Resources& resources) override;
    Result<SandboxCounters> sandbox_counters(const std::string& sandbox_id) override;
    Status pause(const std::string& id) override;
    Status resume(const std::string& id) override;
    Status reopen_log(const std::string& id, int log_fd) override;
    Result<std::unique_ptr<EventStream>> events(const std::string& sandbox_id) override;
    Result<std::string> stacks(const std::string& sandbox_id);
    bool sandbox_alive(const std::string& sandbox_id) override;

    struct Impl;  ///< of runtime/ alone

  private:
    std::unique_ptr<Impl> impl_;
};

}  // namespace moat::runtime
