#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernel/control/plan.h"
#include "runtime/error.h"
#include "runtime/runtime.h"
#include "runtime/sandbox/spawn.h"

namespace moat::runtime {

/// record.json of a native pod. What must be undone stands here before it is done.
struct NativePod {
    std::string id;
    std::string cgroup;
    std::vector<std::string> cgroup_directories;  ///< that we made, or were about to
    std::string network_namespace;                ///< empty: the node's
    bool host_ipc = false;
    /// Set: it has a user namespace, which its network namespace belongs to.
    std::optional<MappedRoot> mapped_root;
    std::string shm;  ///< where a tmpfs is mounted; empty: nowhere
    ProcessRef pause;

    Status save(const std::string& directory) const;
    /// ENOENT.
    static Result<NativePod> load(const std::string& directory);
};

/// record.json of a native container.
struct NativeContainer {
    std::string id;
    std::string pod_id;
    std::string bundle;
    std::string cgroup;
    int64_t created_at_ns = 0;
    bool complete = false;  ///< creation went through; otherwise it may only be removed
    // Not of the record, but of its monitor's files:
    bool starting = false;  ///< a start has begun and neither succeeded nor, perhaps, failed
    ProcessRef init;        ///< pid 0: it was not started

    std::string rootfs() const { return bundle + "/rootfs"; }
    std::string upper() const { return bundle + "/upper"; }
    Status save(const std::string& directory) const;
    static Result<NativeContainer> load(const std::string& directory);
};

/// CONTAINER.exit, which its monitor writes once all its output is in the log; nothing: it runs.
std::optional<control::ExitStatus> read_exit(const std::string& events, const std::string& id);
Status write_exit(const std::string& events, const std::string& id,
                  const control::ExitStatus& exit);
/// CONTAINER.monitor: the monitor's process, dead or alive; pid 0 if it never began.
ProcessRef read_monitor(const std::string& events, const std::string& id);

}  // namespace moat::runtime
