#pragma once

#include <fcntl.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/file.h"
#include "kernel/fs/path.h"

namespace moat::kernel {

/// The first argument of the *at calls: a descriptor of the guest or AT_FDCWD.
enum class DirFd : int32_t {};
inline constexpr DirFd kCwd{AT_FDCWD};

enum LookupFlags : uint32_t {
    kNoFollow = 1,       ///< a symlink as the last component is the result
    kDirectory = 2,      ///< ENOTDIR unless it is one
    kAllowEmpty = 4,     ///< AT_EMPTY_PATH: "" is `dirfd` itself
    kNoXdev = 8,         ///< RESOLVE_NO_XDEV: EXDEV on crossing a mount
    kNoMagicLinks = 16,  ///< RESOLVE_NO_MAGICLINKS: ELOOP
    kNoSymlinks = 32,    ///< RESOLVE_NO_SYMLINKS: ELOOP
    kBeneath = 64,       ///< RESOLVE_BENEATH: EXDEV on leaving `dirfd`
    kInRoot = 128,       ///< RESOLVE_IN_ROOT: `dirfd` is the root
    kForOpenRead = 256,  ///< the result will be opened for reading
};

/// Where a walk ended.
struct Resolved {
    Path path;
    /// The walk ended at a /proc/PID/fd link of an object with no path: this.
    RefPtr<File> anonymous;
};

enum class LastKind : uint8_t { kName, kDot, kDotDot, kRoot };

/// The directory of a path's last component, which need not exist.
struct ParentAndName {
    Path directory;
    std::string name;
    LastKind kind = LastKind::kName;
    bool trailing_slash = false;
};

/// Walks `path` (path_resolution(7)) as `task`. ENOENT, ENOTDIR, EACCES, ELOOP (more than 40
/// links), ENAMETOOLONG, EBADF (`dirfd`).
Result<Path> resolve(Task& task, DirFd dirfd, std::string_view path, uint32_t flags = 0);
/// As resolve(), also for links of /proc to what has no path.
Result<Resolved> resolve_any(Task& task, DirFd dirfd, std::string_view path, uint32_t flags = 0);
/// All but the last component; a trailing symlink is not followed. An empty path is ENOENT.
Result<ParentAndName> resolve_parent(Task& task, DirFd dirfd, std::string_view path,
                                     uint32_t flags = 0);
/// The entry `name` of `directory` with what is mounted there; ENOENT. No permission check.
Result<Path> lookup_child(Task& task, const Path& directory, std::string_view name);
/// As lookup_child(), without following mounts.
Result<RefPtr<Dentry>> lookup_dentry(Task& task, Dentry& directory, std::string_view name);

/// A walk that can be taken up again, for open(2) with O_CREAT, which may meet a symlink at the
/// end.
class Walker {
  public:
    static Result<Walker> start(Task& task, DirFd dirfd, std::string_view path, uint32_t flags);
    /// A walk from `start` with `root` as the root, for the kernel's own needs.
    Walker(Task& task, Path root, Path start, std::string_view path, uint32_t flags);

    /// To the end; the result is current(), or anonymous().
    Status run_to_end();
    /// To the last component, not looking it up.
    Result<ParentAndName> run_to_parent();
    /// After run_to_parent(): the last component was found to be this symlink; puts its target in
    /// the place of what is left. True: a magic link has led to current() or anonymous() at once.
    Result<bool> follow_last(const Path& link);
    const Path& current() const { return current_; }
    const RefPtr<File>& anonymous() const { return anonymous_; }

  private:
    Status run(bool to_parent, ParentAndName* parent);
    Status go_up();
    Result<bool> follow_link(const Path& link);
    Result<Path> child(std::string_view name);
    Status enter_root();

    Task* task_;
    Path root_;
    Path start_;
    Path current_;
    RefPtr<File> anonymous_;
    std::string rest_;
    size_t position_ = 0;
    uint32_t flags_;
    int links_ = 0;
};

}  // namespace moat::kernel
