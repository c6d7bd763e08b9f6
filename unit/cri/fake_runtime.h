#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/runtime.h"

namespace moat::runtime {

/// The world behind FakeRuntime: it outlives the objects of that class, as sandboxes outlive a
/// moatd.
struct FakeWorld {
    struct Container {
        std::string sandbox_id;
        control::ContainerState state = control::ContainerState::kCreated;
        std::optional<control::ExitStatus> exit;
        std::string bundle;
        bool ignores_term = false;
    };
    std::mutex mu;
    std::map<std::string, bool> sandboxes;  ///< id -> alive
    std::map<std::string, Container> containers;
    std::vector<std::string> calls;
    std::string fail_at;  ///< the call of this name fails once

    static FakeWorld& get();
    void reset();
    /// The guest's init ends; whoever listens hears of it.
    void end(const std::string& container_id, int code, int signal, bool oom = false);
    /// The sentry dies with all that is in it.
    void kill_sandbox(const std::string& id);
};

/// A Runtime whose pods are entries of FakeWorld. What no test here needs says so.
class FakeRuntime final : public Runtime {
  public:
    Status create_sandbox(const SandboxConfig& config) override;
    Status destroy_sandbox(const std::string& id) override;
    Status create(const CreateConfig& config) override;
    Status start(const std::string& id) override;
    Result<ContainerInfo> state(const std::string& id) override;
    Status kill(const std::string& id, int signal, bool all = false) override;
    Status remove(const std::string& id, bool force = false) override;
    Result<ExitStatus> wait(const std::string&) override { return not_here("wait"); }
    Result<std::string> exec(const std::string& id, const ExecConfig& config) override;
    Result<ExitStatus> wait_exec(const std::string& id, const std::string& exec_id) override;
    Status kill_exec(const std::string& id, const std::string& exec_id, int signal) override;
    Status attach(const std::string& id, const AttachStdio& stdio) override;
    Status resize(const std::string&, const std::string&, uint16_t, uint16_t) override {
        return not_here("resize");
    }
    Result<std::vector<ProcessInfo>> processes(const std::string&) override {
        return not_here("processes");
    }
    Result<Stats> stats(const std::string& id) override;
    Result<Stats> sandbox_stats(const std::string& id) override;
    Status update(const std::string&, const Resources&) override { return not_here("update"); }
    Status pause(const std::string&) override { return not_here("pause"); }
    Status resume(const std::string&) override { return not_here("resume"); }
    Status reopen_log(const std::string& id, int log_fd) override;
    Result<std::unique_ptr<EventStream>> events(const std::string& sandbox_id) override;
    bool sandbox_alive(const std::string& sandbox_id) override;

  private:
    static Error not_here(const char* call) {
        return Error(ENOSYS, std::string(call) + ": the fake runtime has none");
    }
};

}  // namespace moat::runtime
