#pragma once

// Control groups of the host, v1 and v2 behind one interface.
//
// A cgroup is named by one path that is the same in every hierarchy and starts at the hierarchy's
// root ("/moat/pod-1/web"), never at the cgroup that we happen to run in: whoever started us may
// sit in one that is not ours. Nothing here touches a cgroup that its caller did not name, and
// remove() takes the very directories that make() reported.

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cgroups/statistics.h"
#include "kernel/base/error.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cgroups {

template <typename T = void>
using Result = moat::Result<T, Error>;
using Status = Result<void>;

/// Where pods go when nobody says where.
inline constexpr const char* kDefaultParent = "/moat";

/// What to limit; unset fields are left as they are. The meanings are those of OCI's
/// `linux.resources`, which are v1's; v2's values are converted.
struct Limits {
    std::optional<int64_t> memory_bytes;       ///< -1: none
    std::optional<int64_t> memory_swap_bytes;  ///< memory and swap together; -1: none
    std::optional<int64_t> memory_reservation_bytes;
    std::optional<int64_t> cpu_quota_us;  ///< per period; -1: none
    std::optional<uint64_t> cpu_period_us;
    std::optional<uint64_t> cpu_shares;  ///< 2 to 262144
    std::optional<std::string> cpuset_cpus;
    std::optional<std::string> cpuset_mems;
    std::optional<int64_t> pids;                 ///< at most so many host tasks; -1 or 0: no limit
    std::map<std::string, uint64_t> huge_pages;  ///< page size ("2MB") to bytes
    /// v2 only: file name to content ("memory.high": "1000000").
    std::map<std::string, std::string> unified;
};

/// A descriptor through which a process joins a cgroup in one hierarchy.
struct JoinFd {
    std::string name;  ///< first controller of a v1 hierarchy, or "unified"
    /// Opened for writing. v1: the file `tasks`, since a single-threaded process that writes "0"
    /// for itself there is moved without the kernel's global lock (kernel/cgroup/cgroup.c:
    /// cgroup_procs_write_start), which costs milliseconds otherwise. v2: `cgroup.procs`.
    ScopedFd fd;
};

enum class Version { kNone, kV1, kV2 };

/// One mounted hierarchy.
struct Hierarchy {
    std::string mount_point;
    std::vector<std::string> controllers;  ///< v1: of this hierarchy; "systemd" for name=systemd
};

struct Mounts {
    std::vector<Hierarchy> v1;
    std::string v2;  ///< mount point, or empty
};

/// Reads the text of a mountinfo file (proc(5)); binds of parts of a hierarchy are passed over.
Mounts parse_mountinfo(const std::string& text);

inline constexpr int kFreezeWaitMs = 30;

/// Limits that are set. Unless keep() is called, the old ones come back when it ends.
class LimitChange {
  public:
    virtual ~LimitChange() = default;
    virtual void keep() = 0;
};

/// The machine's cgroups. Stateless; safe to share between threads.
class Manager {
  public:
    virtual ~Manager() = default;
    virtual Version version() const = 0;

    /// The directories that make(path) would have to make, parents first: written down by the
    /// caller before anything is made, so that a kill at any instant leaves nothing unknown behind.
    virtual std::vector<std::string> missing(const std::string& path) const = 0;
    /// The cgroup's directory in every hierarchy.
    virtual std::vector<std::string> directories(const std::string& path) const = 0;
    /// Makes the cgroup and its missing parents in every hierarchy. Existing ones are success.
    virtual Status make(const std::string& path) const = 0;
    /// All or nothing: on an error what was set already gets its old value back.
    virtual Result<std::unique_ptr<LimitChange>> change_limits(const std::string& path,
                                                               const Limits& limits) const = 0;
    Status set_limits(const std::string& path, const Limits& limits) const {
        TRY(change_limits(path, limits))->keep();
        return {};
    }
    virtual Result<Statistics> statistics(const std::string& path) const = 0;
    virtual Result<std::vector<JoinFd>> open_join(const std::string& path) const = 0;
    /// The file whose line "oom_kill N" counts the cgroup's processes that the kernel killed for
    /// want of memory, for reading: the count rises before the victim gets its signal
    /// (mm/oom_kill.c: __oom_kill_process). An invalid descriptor without a memory controller.
    virtual Result<ScopedFd> open_oom_count(const std::string& path) const = 0;
    /// Host pids of the processes in the cgroup itself and in those below it.
    virtual std::vector<pid_t> processes(const std::string& path) const = 0;
    /// Stops everything in the cgroup and below. A process inside a system call that only death may
    /// interrupt stops when the call returns, and is not waited for for longer than kFreezeWaitMs:
    /// so do guests that wait for their sentry.
    virtual Status freeze(const std::string& path) const = 0;
    virtual Status thaw(const std::string& path) const = 0;
    /// SIGKILLs everything in the cgroup and below until it is empty. ETIMEDOUT if it does not die.
    virtual Status kill(const std::string& path) const = 0;
};

/// What is mounted on this machine. v1 is chosen as soon as one controller of {cpu, memory, pids}
/// is there: a v2 hierarchy beside it then has no controllers worth speaking of. Without any
/// hierarchy the manager makes nothing and limits nothing.
Result<std::unique_ptr<Manager>> detect();
/// For tests and detect().
std::unique_ptr<Manager> make_v1(std::vector<Hierarchy> hierarchies);
std::unique_ptr<Manager> make_v2(std::string mount_point);
std::unique_ptr<Manager> make_none();

/// Removes directories that make() made, deepest first. A directory that is gone is success; one
/// that others have filled (a shared parent) is left alone; a leaf whose processes are still dying
/// is waited for, up to two seconds: EBUSY then. `keep_going`: every directory is tried, the first
/// error is returned.
Status remove(const std::vector<std::string>& directories);

/// `linux.cgroupsPath` as a path: "/a/b" as it is, "a/b" below the root, the systemd form
/// "parent-child.slice:prefix:name" as "/parent.slice/parent-child.slice/prefix-name.scope".
/// EINVAL for "..", an empty name, or a malformed slice.
Result<std::string> normalize_path(const std::string& cgroups_path);

/// v1 shares (2..262144) as v2 weight (1..10000), by the curve that runc and crun use since 2025:
/// 2 -> 1, 1024 -> 100, 262144 -> 10000.
uint64_t weight_from_shares(uint64_t shares);
/// The least shares that have at least this weight.
uint64_t shares_from_weight(uint64_t weight);

}  // namespace moat::cgroups
