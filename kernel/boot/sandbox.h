#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/boot/failure.h"
#include "kernel/boot/job.h"
#include "kernel/control/plan.h"
#include "kernel/ipc/ipc_namespace.h"
#include "kernel/task/container.h"
#include "kernel/task/task_life.h"
#include "kernel/task/task_table.h"

namespace moat::kernel {

/// The pod's containers and what the control server does to them. One lock; waits are on one
/// condition, whose waiters are few (a thread for each connection that waits).
class Sandbox {
  public:
    /// `exit_status`: what the plan's `exit_with` is written to; may be empty.
    explicit Sandbox(control::SandboxPlan plan, ScopedFd exit_status = ScopedFd());

    const control::SandboxPlan& plan() const { return plan_; }
    /// `input`: its stdin is what attach() brings.
    Outcome<> create_container(control::ContainerPlan plan, NamedFds fds,
                               std::optional<AttachedInput::Once> input = std::nullopt);
    /// The guest pid of the init.
    Outcome<int32_t> start(const std::string& id);
    Outcome<std::pair<std::string, int32_t>> exec(const std::string& id,
                                                  control::ProcessPlan process, NamedFds fds);
    /// What a signal does to the init of a pid namespace that has no handler for it.
    enum class OnInit {
        kIgnored,  ///< nothing, as for any signal but KILL and STOP that comes from a host's
                   ///< kill(2)
        kDefault,  ///< its default action: somebody at a terminal wants it to end
    };
    Outcome<> signal(const std::string& id, const std::string& exec_id, int signal, bool all,
                     OnInit on_init);
    /// Blocks; ECANCELED when `peer` (a socket) is closed by its other side.
    Outcome<control::ExitStatus> wait(const std::string& id, const std::string& exec_id, int peer);
    struct State {
        std::string id;
        control::ContainerState state = control::ContainerState::kCreated;
        int32_t pid = 0;
        std::optional<control::ExitStatus> exit;
    };
    Outcome<State> state(const std::string& id);
    std::vector<State> list();
    Outcome<std::vector<control::ProcessInfo>> processes(const std::string& id);
    struct Stats {
        uint64_t tasks = 0;
        uint64_t pids_limit = 0;  ///< 0: none
        uint64_t upper_bytes = 0;
        uint64_t upper_inodes = 0;
        uint64_t syscalls = 0;
        uint64_t processes = 0;
        uint64_t file_descriptors = 0;
        uint64_t sockets = 0;                      ///< of the first kCountedDescriptors
        std::optional<uint64_t> open_files_limit;  ///< of the init, soft
    };
    Outcome<Stats> stats(const std::string& id);
    Outcome<> set_paused(const std::string& id, bool paused);
    Outcome<> resize(const std::string& id, const std::string& exec_id, uint16_t rows,
                     uint16_t columns);
    /// The descriptors become further ends of the container's standard streams.
    Outcome<> attach(const std::string& id, NamedFds fds);
    Outcome<> reopen_log(const std::string& id, ScopedFd log);
    Outcome<> change_limits(const std::string& id, const control::ShownLimits& limits);
    /// Kills what runs, waits for its end and forgets it.
    Outcome<> destroy(const std::string& id);
    std::string stacks();

    /// A request that is being answered; the sandbox does not end (SandboxPlan::exit_with) before
    /// it is, for a second at most.
    class Answering {
      public:
        explicit Answering(Sandbox& sandbox) : sandbox_(sandbox) { sandbox_.count_answering(1); }
        ~Answering() { sandbox_.count_answering(-1); }
        Answering(const Answering&) = delete;
        Answering& operator=(const Answering&) = delete;

      private:
        Sandbox& sandbox_;
    };

    struct Event {
        std::string kind;  ///< started, exited
        std::string id;
        std::string exec_id;
        std::optional<control::ExitStatus> exit;
    };
    /// The event after number `seen` (0: from now on), with its number. Blocks; ECANCELED as for
    /// wait().
    Outcome<std::pair<uint64_t, Event>> next_event(uint64_t seen, int peer);
    uint64_t newest_event();

  private:
    struct Entry {
        RefPtr<Container> container;
        control::ContainerState state = control::ContainerState::kCreated;
        Job init;
        std::map<std::string, Job> execs;
    };
    Outcome<Entry*> find_locked(const std::string& id);
    Outcome<Job*> find_job_locked(const std::string& id, const std::string& exec_id);
    Outcome<RefPtr<PidNamespace>> choose_pids(const control::ContainerPlan& plan);
    void job_ended(const std::string& id, const std::string& exec_id, int wait_status);
    void post_event_locked(Event event);
    /// Something changed that clients may wait for.
    void tell_change_locked();
    void count_answering(int change);
    /// Tells the exit status, lets those be answered who wait for it, and ends the sentry.
    void end(const control::ExitStatus& status);
    template <typename Ready>
    bool wait_locked(std::unique_lock<std::mutex>& lock, int peer, Ready ready);

    const control::SandboxPlan plan_;
    RefPtr<PidNamespace> pod_pids_;
    std::mutex pause_mu_;
    RefPtr<Container> pause_;  ///< in pod_pids_, from its first container on; guarded by pause_mu_
    const RefPtr<IpcNamespace> pod_ipc_;
    std::mutex mu_;
    std::condition_variable changed_;
    std::vector<int> told_;  // eventfds of clients that wait, each its waiter's
    std::map<std::string, std::unique_ptr<Entry>> entries_;
    std::map<uint64_t, Event> events_;  // the newest few hundred
    uint64_t event_count_ = 0;
    uint64_t exec_count_ = 0;
    int answering_ = 0;
    ScopedFd exit_status_;  // immutable
};

}  // namespace moat::kernel
