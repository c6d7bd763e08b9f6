#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernel/base/scoped_fd.h"
#include "runtime/error.h"

namespace moat::runtime {

/// A process of the host, known by pid and start time, so that a reused pid is never taken for it.
struct ProcessRef {
    pid_t pid = 0;            ///< 0: none
    uint64_t start_time = 0;  ///< field 22 of /proc/pid/stat, in clock ticks since boot

    /// Runs, and is no zombie.
    bool alive() const;
    /// SIGKILLs it, waits until it is dead and reaps it if it is our child. Success if it is gone
    /// already; ETIMEDOUT if it does not die within five seconds.
    Status kill_and_wait() const;
};

/// What a child becomes. Everything is borrowed for the call.
struct SpawnRequest {
    std::string name;     ///< for messages
    int executable = -1;  ///< executed by descriptor: a static binary, whatever its root is
    std::vector<std::string> argv;
    std::vector<std::string> env;
    std::vector<int> fds;         ///< become 3, 4, ... in the child; all others are closed
    int stdout_fd = -1;           ///< -1: /dev/null, which stdin always is
    int stderr_fd = -1;           ///< -1: /dev/null
    std::vector<int> cgroup_fds;  ///< joined, by writing "0", before anything else
    uint64_t namespaces = 0;      ///< CLONE_NEW*
    int network_namespace = -1;   ///< joined instead of CLONE_NEWNET, if set
    /// Joined before the others are made, so that they belong to it, if set; the child is root
    /// there.
    int user_namespace = -1;
    bool loopback_up = false;  ///< with CLONE_NEWNET: `lo` is up
    bool empty_root = false;   ///< an empty read-only tmpfs with only its own /proc (NEWNS, NEWPID)
    std::optional<uid_t> uid;  ///< also the gid; without capabilities then
    bool no_new_privs = false;
    bool raise_nofile = false;  ///< RLIMIT_NOFILE's soft limit to its hard limit
    /// Text for /proc/self/oom_score_adj; ignored where the host does not allow it.
    const char* oom_score_adj = nullptr;
};

/// Starts a child with one vfork-like clone: our memory is not copied, the calling thread waits
/// until the child has executed its program. The child gets a session of its own, default signals,
/// and survives us. An error names the child's step: "start moat-sentry: join the network
/// namespace: ...".
Result<ProcessRef> spawn(const SpawnRequest& request);

/// Field 22 of /proc/PID/stat; 0 if there is no such process or it is a zombie.
uint64_t process_start_time(pid_t pid);

}  // namespace moat::runtime
