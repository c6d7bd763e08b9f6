#pragma once

// State directories: `state_root/<id>/` holds
//   state.json    what was made, written before and after it is made
//   lock          flock: exclusive while the container changes; shared, on a sandbox, while others
//                 join
//   control.sock  of a sandbox: its sentry listens there
//   exit.json     of a container that started a sandbox: its exit status, written by the sentry,
//                 which exits then
//   sentry.log, gofer.log

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernel/base/scoped_fd.h"
#include "kernel/control/plan.h"
#include "runtime/error.h"
#include "runtime/sandbox/spawn.h"
#include "runtime/spec/spec.h"

namespace moat::runtime {

inline constexpr const char* kExitStatusFile = "exit.json";

/// What state.json says. Everything that must be undone stands here before it is done.
struct Record {
    std::string id;
    std::string sandbox_id;      ///< whose sentry it runs in; its own id if it has one
    bool has_sandbox = false;    ///< a sentry belongs to it
    bool has_container = false;  ///< a container belongs to it (moatd's bare sandboxes have none)
    bool complete = false;       ///< creation went through; otherwise it may only be removed
    bool frozen = false;         ///< its cgroup is frozen, or is about to be
    std::string bundle;
    std::string rootfs;
    int64_t created_at_ns = 0;
    ProcessRef sentry;
    ProcessRef gofer;
    std::string pod_cgroup;                       ///< of a sandbox
    std::string container_cgroup;                 ///< of a container
    std::vector<std::string> cgroup_directories;  ///< that we made, or were about to
    std::map<std::string, std::string> annotations;
    control::ProcessPlan process;  ///< of a container: what exec inherits
    std::vector<SpecHook> poststart, poststop;
    std::optional<control::ExitStatus> exit;  ///< as soon as anybody has seen it

    std::string to_json() const;
    static Result<Record> from_json(const std::string& text, const std::string& file);
};

enum class LockMode { kNone, kShared, kExclusive };

/// An open, possibly locked state directory.
class StateDirectory {
  public:
    /// EEXIST if the id is taken. The new directory is locked exclusively.
    static Result<StateDirectory> create(const std::string& state_root, const std::string& id);
    /// ENOENT: no container of that id. Waits for the lock.
    static Result<StateDirectory> open(const std::string& state_root, const std::string& id,
                                       LockMode mode);

    int fd() const { return fd_.get(); }
    const std::string& path() const { return path_; }
    Result<Record> load() const;
    Status save(const Record& record) const;
    /// A log file of that name, opened for appending.
    Result<ScopedFd> open_log(const std::string& name) const;
    /// The end of a log, for an error message; empty if there is nothing.
    std::string log_tail(const std::string& name) const;
    /// What the sentry wrote before it exited with its container; nothing if it did not.
    std::optional<control::ExitStatus> recorded_exit() const;
    /// Removes the directory itself; the lock ends with the object.
    Status remove() const;

  private:
    StateDirectory(std::string path, ScopedFd fd, ScopedFd lock)
        : path_(std::move(path)), fd_(std::move(fd)), lock_(std::move(lock)) {}

    std::string path_;
    ScopedFd fd_;
    ScopedFd lock_;
};

/// Letters, digits and "_+-." only, not "." or "..", 1 to 128 bytes: EINVAL otherwise.
Status check_id(const std::string& id);
/// Names of all state directories.
Result<std::vector<std::string>> list_ids(const std::string& state_root);

}  // namespace moat::runtime
