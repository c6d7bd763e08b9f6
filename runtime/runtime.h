#pragma once

// The runtime layer's face: what `moatd` (the CRI server) calls, whichever handler a pod has.
// sentry_runtime.h is the one that sandboxes; `moat` (the command line) calls that.

#include <cerrno>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cgroups/statistics.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/control/plan.h"
#include "runtime/error.h"

namespace moat::runtime {

using control::ContainerState;
using control::ExitStatus;
using control::ProcessInfo;

/// CPU, memory and pids limits; unset fields are left alone.
struct Resources {
    std::optional<int64_t> memory_limit_bytes;  ///< -1: none
    std::optional<int64_t> memory_swap_bytes;
    std::optional<int64_t> cpu_quota_us;  ///< per period; -1: none
    std::optional<uint64_t> cpu_period_us;
    std::optional<uint64_t> cpu_shares;
    std::optional<std::string> cpuset_cpus;
    std::optional<std::string> cpuset_mems;
    std::optional<int64_t> pids_limit;
    std::map<std::string, uint64_t> huge_pages;  ///< page size ("2MB") to bytes
    std::map<std::string, std::string> unified;  ///< v2 only: file name to content
    /// Of every process; lower than the caller's own only as far as the host lets us.
    std::optional<int> oom_score_adj;
};

/// A pod's sandbox without a process of its own, as moatd makes it.
/// The user and the group of the node that are root in a user namespace.
struct MappedRoot {
    uint32_t uid = 0;
    uint32_t gid = 0;
};

struct SandboxConfig {
    std::string id;
    std::string hostname;
    std::string
        network_namespace;      ///< path of the pod's; empty: a new, empty one (NetworkMode::kNone)
    bool host_network = false;  ///< the node's; its host name too, where the handler has that
    bool host_ipc = false;
    /// Set: the pod has a user namespace, the one that its network namespace belongs to.
    std::optional<MappedRoot> mapped_root;
    std::string shm_directory;  ///< of the pod: what its containers have at /dev/shm
    std::string cgroup_parent;  ///< below which the pod's cgroup `<id>` is made; "" the default
    Resources resources;
    std::map<std::string, std::string> annotations;
    std::map<std::string, std::string> sysctls;
};

/// Where the streams of a container or an exec go. All descriptors are borrowed for the call.
struct Stdio {
    int stdin_fd = -1;  ///< -1: /dev/null
    int stdout_fd = -1;
    int stderr_fd = -1;
    int cri_log_fd = -1;  ///< stdout and stderr as CRI log lines into this file, if set
    int console_fd = -1;  ///< slave of a host pty for a process with a terminal
    /// A container (not an exec) whose input is what attach() brings: stdin, without a terminal.
    bool attach_stdin = false;
    bool attach_stdin_once = false;  ///< the first attached input's end is end of file
};

struct CreateConfig {
    std::string id;
    std::string bundle;  ///< directory with config.json; annotations say: a sandbox, or joins one
    Stdio stdio;
    std::string console_socket;  ///< OCI: where the pty's master is sent, for a terminal
    std::string pid_file;
};

struct ExecConfig {
    std::vector<std::string> args;
    std::vector<std::string> env;        ///< empty: the container's
    std::vector<std::string> extra_env;  ///< added to it, replacing variables of the same name
    std::string cwd;                     ///< empty: the container's
    std::optional<uint32_t> uid, gid;
    std::vector<uint32_t> additional_gids;
    bool terminal = false;
    uint16_t rows = 0;  ///< of the terminal when the process starts; 0: not said
    uint16_t columns = 0;
    std::string process_json;  ///< OCI: a whole process object instead of the fields above
    Stdio stdio;
};

/// The other end of a container's streams for somebody who attaches; all borrowed for the call, -1
/// where not wanted. Any descriptor that poll(2) knows will do: pipes, as a rule.
struct AttachStdio {
    int stdin_fd =
        -1;  ///< what is read here goes to the container (with Stdio::attach_stdin, or a terminal)
    int stdout_fd = -1;  ///< of a terminal: all that it shows
    int stderr_fd = -1;  ///< EINVAL with a terminal
};

struct ContainerInfo {
    std::string id;
    std::string sandbox_id;  ///< its own id for a container that started a sandbox
    std::string bundle;
    ContainerState state = ContainerState::kCreated;
    int sentry_pid = 0;  ///< host pid of the sandbox's sentry; 0 when it is gone
    int64_t created_at_ns = 0;
    std::optional<ExitStatus> exit;
    std::map<std::string, std::string> annotations;
};

/// Of a container's cgroup, or of a pod's as a whole; and what else belongs to it.
struct Stats : cgroups::Statistics {
    uint64_t writable_layer_bytes = 0;
    uint64_t writable_layer_inodes = 0;
    uint64_t processes = 0;  ///< of a container: its own; of a pod: the host's, helpers included
    uint64_t file_descriptors = 0;             ///< of a container's processes together
    uint64_t sockets = 0;                      ///< among them
    std::optional<uint64_t> open_files_limit;  ///< RLIMIT_NOFILE (soft) of the first process
    std::string cgroup;                        ///< its path, from a hierarchy's root on
};

struct Event {
    std::string kind;  ///< started, exited, oom
    std::string container_id;
    std::string exec_id;
    std::optional<ExitStatus> exit;
};

/// Events of one sandbox. `next()` blocks; ECONNRESET: the sentry is gone. `cancel()` from another
/// thread makes it return ECANCELED.
class EventStream {
  public:
    virtual ~EventStream() = default;
    virtual Result<Event> next() = 0;
    virtual void cancel() = 0;
};

/// What runs pods: a sandbox of our own (sentry_runtime.h) or another kernel's means. Safe to use
/// from several threads. All ids are the caller's.
/// What a sandbox's kernel counts of itself.
struct SandboxCounters {
    std::map<std::string, uint64_t>
        unsupported;            ///< calls it does not do, by name, since its start
    uint64_t memory_bytes = 0;  ///< resident, of the kernel itself
    uint64_t threads = 0;
};

class Runtime {
  public:
    virtual ~Runtime() = default;

    /// Makes cgroup, state directory and sentry of a pod; on error nothing is left of it.
    virtual Status create_sandbox(const SandboxConfig& config) = 0;
    /// Kills all of the pod's containers and its sentry and removes what was made. A sandbox that
    /// is not there is a success.
    virtual Status destroy_sandbox(const std::string& id) = 0;
    /// What create() would refuse of the bundle, without making anything. What depends on the
    /// machine at that moment is create()'s.
    virtual Status check(const CreateConfig& /*config*/) { return {}; }
    /// OCI create: builds the plan, starts the gofer (and the sentry, for a container that starts a
    /// sandbox), leaves the container Created.
    virtual Status create(const CreateConfig& config) = 0;
    virtual Status start(const std::string& id) = 0;
    virtual Result<ContainerInfo> state(const std::string& id) = 0;
    /// ESRCH when it does not run. `all`: every process of the container.
    virtual Status kill(const std::string& id, int signal, bool all = false) = 0;
    /// EBUSY unless stopped or `force`. Deleting what is not there: ENOENT.
    virtual Status remove(const std::string& id, bool force = false) = 0;
    /// Blocks until the container's init has ended. ECONNRESET: the sentry died.
    virtual Result<ExitStatus> wait(const std::string& id) = 0;
    /// Starts a process in a running container; its exit is collected by wait_exec().
    virtual Result<std::string> exec(const std::string& id, const ExecConfig& config) = 0;
    virtual Result<ExitStatus> wait_exec(const std::string& id, const std::string& exec_id) = 0;
    virtual Status kill_exec(const std::string& id, const std::string& exec_id, int signal) = 0;
    /// Attaches somebody to a running container's streams, besides its log and whoever is attached
    /// already; returns at once, and needs no process of ours to live on. What the container writes
    /// from now on goes to the descriptors too. One who does not read slows the container down for
    /// as long as he reads anything at all, and is cut off when he has read nothing for ten
    /// seconds. Closing the other end of a descriptor ends that direction; the container's end
    /// closes ours once all that it wrote was delivered. The end of `stdin_fd` is the container's
    /// only with Stdio::attach_stdin_once. ESRCH: it does not run; EOPNOTSUPP: not built for this
    /// runtime.
    virtual Status attach(const std::string& id, const AttachStdio&) {
        return Error(EOPNOTSUPP, "attach to " + id + ": not built for its runtime");
    }
    virtual Status resize(const std::string& id, const std::string& exec_id, uint16_t rows,
                          uint16_t columns) = 0;
    virtual Result<std::vector<ProcessInfo>> processes(const std::string& id) = 0;
    virtual Result<Stats> stats(const std::string& id) = 0;
    /// Of the pod's cgroup as a whole, the sentry and the gofers included.
    virtual Result<Stats> sandbox_stats(const std::string& sandbox_id) = 0;
    /// Of a container, or of a pod's sandbox. All or nothing: after an error the old values hold.
    virtual Status update(const std::string& id, const Resources& resources) = 0;
    /// EOPNOTSUPP for a runtime whose pods have no kernel of their own.
    virtual Result<SandboxCounters> sandbox_counters(const std::string& sandbox_id) {
        return Error(EOPNOTSUPP, "counters of sandbox " + sandbox_id + ": it has no kernel");
    }
    virtual Status pause(const std::string& id) = 0;
    virtual Status resume(const std::string& id) = 0;
    /// Goes on logging into `log_fd` (borrowed), from a line's start.
    virtual Status reopen_log(const std::string& id, int log_fd) = 0;
    virtual Result<std::unique_ptr<EventStream>> events(const std::string& sandbox_id) = 0;
    /// Whether the sandbox's sentry is alive (its pid's start time is compared, not its number
    /// only).
    virtual bool sandbox_alive(const std::string& sandbox_id) = 0;
};

}  // namespace moat::runtime
