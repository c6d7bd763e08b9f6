#pragma once

#include <sys/mount.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/dentry.h"
#include "kernel/fs/path.h"

namespace moat::kernel {

class MountNamespace;

/// The per-mount flags we keep, with mount(2)'s values.
inline constexpr uint64_t kMountFlagMask = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC |
                                           MS_NOATIME | MS_NODIRATIME | MS_RELATIME |
                                           MS_STRICTATIME;

/// A (part of a) file system at a place of a mount tree (Linux: struct mount). Where it is mounted
/// is guarded by the mount lock; a mount that was unmounted lives on for those that hold paths into
/// it.
class Mount final : public RefCounted {
  public:
    Mount(RefPtr<FileSystem> fs, RefPtr<Dentry> root, uint64_t flags, std::string source);
    ~Mount() override;

    int32_t id() const { return id_; }
    FileSystem& file_system() const { return *fs_; }
    const RefPtr<Dentry>& root() const { return root_; }
    uint64_t flags() const { return flags_.load(std::memory_order_relaxed); }
    void set_flags(uint64_t flags) {
        flags_.store(flags & kMountFlagMask, std::memory_order_relaxed);
    }
    bool read_only() const { return (flags() & MS_RDONLY) != 0; }
    bool no_exec() const { return (flags() & MS_NOEXEC) != 0; }
    bool no_suid() const { return (flags() & MS_NOSUID) != 0; }
    bool no_dev() const { return (flags() & MS_NODEV) != 0; }
    const std::string& source() const { return source_; }
    /// Where it is mounted; null: a namespace's root, or unmounted.
    Path mountpoint() const;

  private:
    friend class MountNamespace;
    const int32_t id_;
    const RefPtr<FileSystem> fs_;
    const RefPtr<Dentry> root_;
    const std::string source_;
    std::atomic<uint64_t> flags_;  // relaxed: a racing open may see either
    // The mount lock
    RefPtr<Mount> parent_;
    RefPtr<Dentry> mountpoint_;
    MountNamespace* namespace_ = nullptr;  // null: unmounted
};

/// What is mounted on `path`, from below to the top; `path` itself when nothing is.
Path follow_mounts(Path path);

/// A container's mount tree (mount_namespaces(7)). Propagation is always private.
class MountNamespace final : public RefCounted {
  public:
    /// A tree of one mount.
    static RefPtr<MountNamespace> create(RefPtr<FileSystem> root, uint64_t flags,
                                         std::string source);
    ~MountNamespace() override;

    Path root() const;
    /// Mounts `fs` (from `root`, its own by default) on `at`, over what is there already. ENOTDIR
    /// when one is a directory and the other not; ENOENT when `at` was deleted; ENOSPC beyond
    /// 100,000 mounts.
    Result<RefPtr<Mount>> mount(const Path& at, RefPtr<FileSystem> fs, uint64_t flags,
                                std::string source, RefPtr<Dentry> root = nullptr);
    enum class Recursive : bool { kNo, kYes };
    /// A bind mount. EINVAL when `from` is of no namespace.
    Result<RefPtr<Mount>> bind(const Path& from, const Path& at, Recursive recursive);
    /// MS_MOVE.
    Status move(const Path& from, const Path& at);
    /// umount2(2) of the mount whose root `at` is. EINVAL: not a mount's root, or of another
    /// namespace, or the namespace's root; EBUSY: mounts below it, without MNT_DETACH, or open
    /// files.
    Status unmount(const Path& at, int flags);
    /// pivot_root(2); `callers` are changed by the caller.
    Status pivot_root(const Path& new_root, const Path& put_old);
    /// unshare(CLONE_NEWNS): the same tree of new mounts. `moved` maps old to new mounts.
    RefPtr<MountNamespace> clone(std::vector<std::pair<RefPtr<Mount>, RefPtr<Mount>>>* moved) const;

    /// All of them in the order of mounting.
    std::vector<RefPtr<Mount>> mounts() const;
    /// /proc/PID/mounts and /proc/PID/mountinfo as seen by a process whose root is `root`: mounts
    /// that it cannot reach are left out.
    std::string mounts_text(const Path& root) const;
    std::string mountinfo_text(const Path& root) const;
    /// Told when the tree changes (poll(2) on /proc/self/mounts).
    WaitQueue& changed() { return changed_; }

  private:
    MountNamespace() = default;
    Result<RefPtr<Mount>> attach(RefPtr<Mount> mount, const Path& at);
    bool is_below_locked(const Mount& mount, const Mount& top) const;

    std::vector<RefPtr<Mount>> mounts_;  // the mount lock
    RefPtr<Mount> root_;                 // the mount lock
    WaitQueue changed_;
};

/// "rw,nosuid,relatime": a mount's flags as /proc/mounts has them.
std::string mount_flags_text(uint64_t flags);
/// The text of `path` as seen from `root`: "/a/b", with " (deleted)" for what has no name any more
/// and
/// "(unreachable)" before what lies outside `root` (Linux: d_path and getcwd).
std::string path_text(const Path& path, const Path& root);

}  // namespace moat::kernel
