#pragma once

// What the runtime decides and the sentry carries out. Messages only: this header and transport.h
// are the one part of kernel/ that runtime/ includes.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace moat::control {

/// How guests reach the network.
enum class NetworkMode : uint8_t {
    kNone,  ///< loopback inside the sentry's own empty network namespace
    kHost,  ///< sockets of the pod's network namespace, which the sentry was started in
};

/// One pod's kernel. Sent as the first message after the sentry is started.
struct SandboxPlan {
    std::string id;
    std::string hostname;
    NetworkMode network = NetworkMode::kNone;
    bool strace = false;
    std::string log_level = "info";
    uint32_t cpus = 0;          ///< CPUs shown to guests; 0: those of the host
    uint64_t memory_bytes = 0;  ///< MemTotal shown to guests; 0: the host's
    std::map<std::string, std::string> sysctls;
    /// The container whose end is the sandbox's: the sentry writes its exit status to the
    /// descriptor "exit_status" of the boot request and exits with its code (128 + signal), for
    /// whoever waits on the pid of an OCI pid file. Empty: the sentry lives until it is shut down.
    std::string exit_with;
};

struct Rlimit {
    std::string type;  ///< "RLIMIT_NOFILE", ...
    uint64_t soft = 0;
    uint64_t hard = 0;
};

/// Capabilities as bit masks, bit N being CAP_N of linux/capability.h.
struct CapabilitySets {
    uint64_t bounding = 0;
    uint64_t effective = 0;
    uint64_t inheritable = 0;
    uint64_t permitted = 0;
    uint64_t ambient = 0;
};

/// Where one of the standard streams of a process goes.
enum class StdioKind : uint8_t {
    kNull,      ///< /dev/null of the guest
    kFd,        ///< a descriptor handed over with the message ("stdin", "stdout", "stderr")
    kCriLog,    ///< lines into the descriptor "log" in the CRI log format
    kTerminal,  ///< a guest terminal, bridged to the descriptor "console" (a raw host pty slave)
};

struct ProcessPlan {
    std::vector<std::string> args;
    std::vector<std::string> env;
    std::string cwd = "/";
    uint32_t uid = 0;
    uint32_t gid = 0;
    std::vector<uint32_t> additional_gids;
    uint32_t umask = 022;
    CapabilitySets capabilities;
    std::vector<Rlimit> rlimits;
    bool no_new_privileges = false;
    bool terminal = false;
    uint16_t console_rows = 0;
    uint16_t console_columns = 0;
    StdioKind stdin_kind = StdioKind::kNull;
    StdioKind stdout_kind = StdioKind::kNull;
    StdioKind stderr_kind = StdioKind::kNull;
};

/// One mount of a container, in the order in which they are made.
struct MountPlan {
    std::string destination;  ///< absolute, inside the container
    std::string type;         ///< gofer, tmpfs, proc, sysfs, dev, devpts, mqueue, cgroup, shared
    std::string source;       ///< shared: the name of a tmpfs shared by the pod's containers
    int gofer_mount = -1;     ///< gofer: index of the mount in the gofer's own plan
    bool read_only = false;
    bool no_exec = false;
    bool no_suid = false;
    bool no_dev = false;
    std::vector<std::string> options;  ///< type-specific data: "size=64m", "mode=1777", "gid=5"
};

/// The gofer's mount 0 is the container's root.
struct RootPlan {
    bool overlay = true;       ///< tmpfs upper over the gofer's read-only lower
    bool read_only = false;    ///< for the guest; mounts are made before it takes effect
    uint64_t upper_bytes = 0;  ///< size limit of the upper layer; 0: half the memory
};

enum class PidNamespace : uint8_t {
    kContainer,
    kPod,
    kTarget,  ///< that of another container of the sandbox
};

enum class IpcNamespace : uint8_t {
    kPod,
    kContainer,  ///< one of its own
};

/// What the host's cgroups hold a container to, for its guests to see. A field without a value: not
/// said, as it was.
struct ShownLimits {
    std::optional<uint64_t> memory_bytes;  ///< 0: none
    std::optional<uint64_t> cpu_quota_us;  ///< of each period; 0: none
    std::optional<uint64_t> cpu_period_us;
    std::optional<uint64_t> cpu_weight;  ///< v2's unit
    std::optional<std::string> cpus;     ///< a list as in cpuset(7); empty: all
    /// Most guest tasks at once; 0: no limit. The sentry holds it: the cgroup's own limit is set
    /// higher, because clean processes and service threads of the platform count there too.
    std::optional<uint64_t> pids;
};

/// One line of user_namespaces(7)'s uid_map or gid_map, from id 0 on: the only kind that Kubernetes
/// makes. Guests' ids are the sentry's own and never the host's; `host_id` is what the guest is
/// shown.
struct IdMap {
    uint32_t host_id = 0;
    uint32_t length = UINT32_MAX;  ///< ids from here on do not exist for the guest
};

struct ContainerPlan {
    std::string id;
    std::string hostname;  ///< empty: the sandbox's
    RootPlan root;
    std::vector<MountPlan> mounts;
    std::vector<std::string> masked_paths;
    std::vector<std::string> readonly_paths;
    PidNamespace pid_namespace = PidNamespace::kContainer;
    std::string pid_target;  ///< kTarget: the other container's id
    IpcNamespace ipc_namespace = IpcNamespace::kPod;
    /// A classic BPF program over struct seccomp_data that the sentry runs for each call of the
    /// container's processes: code << 48 | jt << 40 | jf << 32 | k. Empty: no profile.
    std::vector<uint64_t> seccomp;
    bool seccomp_log = false;  ///< SECCOMP_FILTER_FLAG_LOG
    ShownLimits limits;
    IdMap uid_map;
    IdMap gid_map;
    ProcessPlan process;
};

// ---------------------------------------------------------------- replies and events

enum class ContainerState : uint8_t { kCreated, kRunning, kPaused, kStopped };

/// An exit as wait(2) would tell it. `signal` is 0 for a normal exit.
struct ExitStatus {
    int32_t code = 0;
    int32_t signal = 0;
    bool oom_killed = false;
    int64_t finished_at_ns = 0;  ///< CLOCK_REALTIME
    /// What a shell would show: the code, or 128 + signal.
    int32_t shell_code() const { return signal != 0 ? 128 + signal : code; }
};

struct ProcessInfo {
    int32_t pid = 0;  ///< in the container's pid namespace
    int32_t ppid = 0;
    int32_t host_pid = 0;  ///< in the sentry's host pid namespace
    uint32_t uid = 0;
    std::string state;  ///< one letter, as in proc(5)
    std::string command;
    uint64_t cpu_ns = 0;
    uint64_t rss_bytes = 0;
    int64_t started_at_ns = 0;  ///< CLOCK_REALTIME
};

}  // namespace moat::control
