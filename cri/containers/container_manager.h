#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cri/containers/container.h"

namespace runtime::v1 {
class ContainerConfig;
class LinuxContainerResources;
}  // namespace runtime::v1
namespace moat::control {
struct ExitStatus;
}

namespace moat::cri {

class ContainerEvents;
class ImageStore;
class PodManager;
struct Settings;

struct ExecResult {
    std::string out;  ///< at most kExecOutputLimit bytes; the rest is dropped
    std::string err;
    int32_t exit_code = 0;
};

/// What the CRI allows a stream of ExecSync to have (CVE-2022-1708).
inline constexpr size_t kExecOutputLimit = 16 << 20;

/// All containers of the node.
///
/// Order of writes as in PodManager: the row comes first. "running" is written before the start;
/// after a kill in between, the runtime's state says which side of it we are on.
class ContainerManager {
  public:
    ContainerManager(const Settings& settings, Database& database, ImageStore& images,
                     PodManager& pods, ContainerEvents& events);

    /// Loads the containers; those half made or half removed are removed. Between
    /// PodManager::load() and PodManager::recover().
    Status recover();

    /// CreateContainer. EEXIST: the pod has one of this name and attempt. EBUSY: the pod is not
    /// ready.
    Result<std::string> create(const std::string& pod_id, const api::ContainerConfig& config);
    Status start(const std::string& id);
    /// Sends the stop signal, and SIGKILL after `grace`. Not running, or not there: a success.
    Status stop(const std::string& id, std::chrono::seconds grace);
    /// Kills it if it runs. Not there: a success. Its log stays.
    Status remove(const std::string& id);
    /// ETIMEDOUT after `timeout` (0: never), with the process killed.
    Result<ExecResult> exec_sync(const std::string& id, const std::vector<std::string>& command,
                                 std::chrono::seconds timeout);
    /// UpdateContainerResources: all of it or nothing. What `changes` does not say stays.
    Status update(const std::string& id, const api::LinuxContainerResources& changes);
    /// Log rotation: from here on lines go to a new file at the same path.
    Status reopen_log(const std::string& id);

    /// By id or by an unambiguous beginning of it. ENOENT.
    Result<ContainerPtr> find(const std::string& id);
    std::vector<ContainerPtr> list();

    // What pods ask for.
    /// SIGKILL to all of a pod's containers; returns when they have ended, or after ten seconds.
    void kill_all(const std::string& pod_id);
    /// Nothing of the pod runs any more: whoever has no exit status gets one that says so.
    void sandbox_gone(const std::string& pod_id);
    Status remove_all(const std::string& pod_id);
    /// Takes over what the runtime knows of the pod's containers.
    void reconcile(const std::string& pod_id);
    /// The sandbox reported the end of a container's init.
    void exited(const std::string& id, const control::ExitStatus& status);

  private:
    std::vector<ContainerPtr> of_pod(const std::string& pod_id);
    Status change(Container& container, const ContainerRecord& changed);
    void set_exited(Container& container, int32_t exit_code, int64_t finished_at_ns,
                    const std::string& reason, const std::string& message);
    void reconcile(Container& container);
    /// Signals it and waits for its end.
    Status end(Container& container, std::chrono::seconds grace);
    /// Has the runtime forget a container that was stopped: its exit is in the database, and a dead
    /// container is to hold no gofer, cgroup or mount. What fails is tried again by its removal.
    void release(Container& container);
    void set_not_started(Container& container, const std::string& message);
    /// Tells of a start (if it succeeded), and of an end that came before it was told.
    void finish_start(Container& container, bool started);
    bool wait_for_end(Container& container, std::chrono::milliseconds timeout);
    Result<ContainerRecord> plan(const std::string& pod_id, const api::ContainerConfig& config);
    /// The id of the container whose pid namespace another of the pod is to join.
    Result<std::string> running_target(const std::string& pod_id, const std::string& target_id);
    /// Writes the bundle. What the runtime makes of it shows when it starts, as with containerd.
    Status prepare(Container& container);
    /// Has the runtime make it and start it, or leaves nothing of it there.
    Status launch(Container& container);
    /// Runtime, files and row go; may be repeated.
    Status erase(Container& container);
    Status remove_container(const ContainerPtr& container);

    const Settings& settings_;
    ContainerStore store_;
    ImageStore& images_;
    PodManager& pods_;
    ContainerEvents& events_;

    std::mutex mu_;
    std::map<std::string, ContainerPtr> containers_;  ///< guarded by mu_
};

}  // namespace moat::cri
