#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <string_view>
#include <vector>

#include "runtime/util/files.h"

namespace moat::runtime {

namespace {

/// Directories above the current one that stay open. Below that depth the way back is "..": a guest
/// that nests more directories than moatd may have descriptors would never be got rid of.
constexpr size_t kKeptOpen = 32;

struct Level {
    ScopedFd directory;  ///< none while it is too far up
    ino_t inode;
    std::string name;                ///< in the level above
    std::vector<std::string> below;  ///< directories that are still to be entered
};

/// A directory, unless it is a symlink, or another file system's or mount's than `parent`.
ScopedFd open_below(int parent, const std::string& name) {
    open_how how{};
    how.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    how.resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS;
    return ScopedFd(
        static_cast<int>(::syscall(SYS_openat2, parent, name.c_str(), &how, sizeof how)));
}

class Removal {
  public:
    Status run(const std::string& path) {
        ScopedFd top(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!top) {
            return errno == ENOENT ? Status() : Status(Error::from_errno(errno, "open " + path));
        }
        enter(std::move(top), path);
        while (!levels_.empty()) {
            Level& level = levels_.back();
            if (level.below.empty()) {
                TRY(leave());
                continue;
            }
            const std::string name = std::move(level.below.back());
            level.below.pop_back();
            ScopedFd child = open_below(level.directory.get(), name);
            if (!child) {
                if (errno != ENOENT) {
                    fail(errno, errno == EXDEV ? "something is mounted at" : "open", name);
                }
                continue;
            }
            enter(std::move(child), name);
            if (levels_.size() > kKeptOpen + 1) {
                levels_[levels_.size() - 2].directory.reset();
            }
        }
        return std::move(result_);
    }

  private:
    /// Removes all that is no directory.
    void enter(ScopedFd directory, const std::string& name) {
        Level level{std::move(directory), 0, name, {}};
        struct stat st {};
        ScopedFd stream(::openat(level.directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        const std::unique_ptr<DIR, int (*)(DIR*)> entries(
            stream ? ::fdopendir(stream.get()) : nullptr, ::closedir);
        if (entries == nullptr || ::fstat(level.directory.get(), &st) != 0) {
            fail(errno, "read", name);
            return;
        }
        (void)stream.release();
        level.inode = st.st_ino;
        while (const dirent* entry = ::readdir(entries.get())) {
            const std::string_view found = entry->d_name;
            if (found == "." || found == ".." ||
                ::unlinkat(level.directory.get(), entry->d_name, 0) == 0 || errno == ENOENT) {
                continue;
            }
            if (errno == EISDIR || errno == EPERM) {
                level.below.emplace_back(found);
            } else {
                fail(errno, "remove", entry->d_name);
            }
        }
        levels_.push_back(std::move(level));
    }

    /// Removes the emptied directory, from the level above.
    Status leave() {
        const Level done = std::move(levels_.back());
        levels_.pop_back();
        if (levels_.empty()) {
            if (::rmdir(done.name.c_str()) != 0 && errno != ENOENT) {
                fail(errno, "rmdir", done.name);
            }
            return {};
        }
        Level& level = levels_.back();
        if (!level.directory) {
            level.directory =
                ScopedFd(::openat(done.directory.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
            struct stat st {};
            if (!level.directory || ::fstat(level.directory.get(), &st) != 0) {
                return Error::from_errno(errno, "open what is above " + done.name);
            }
            if (st.st_ino != level.inode) {
                return Error(EBUSY, "remove " + done.name + ": somebody has moved it");
            }
        }
        if (::unlinkat(level.directory.get(), done.name.c_str(), AT_REMOVEDIR) != 0 &&
            errno != ENOENT) {
            fail(errno, "rmdir", done.name);
        }
        return {};
    }

    /// The first is told; the rest goes all the same.
    void fail(int error, const char* what, const std::string& name) {
        if (result_.ok()) {
            result_ = Error::from_errno(error, what + (" " + name));
        }
    }

    std::vector<Level> levels_;
    Status result_;
};

}  // namespace

Status remove_tree(const std::string& path) {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) {
        return {};
    }
    if (errno != EISDIR && errno != EPERM) {
        return Error::from_errno(errno, "remove " + path);
    }
    return Removal().run(path);
}

}  // namespace moat::runtime
