#include "runtime/util/tree_usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/base/scoped_fd.h"

namespace moat::runtime {

namespace {

/// Directories above the current one that stay open. Below that depth the way back is "..".
constexpr size_t kKeptOpen = 32;
constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

struct Level {
    ScopedFd directory;  ///< none while it is too far up
    ino_t inode;
    std::vector<std::string> below;  ///< directories that are still to be entered
};

class Walk {
  public:
    Result<TreeUsage> run(int directory) {
        TRY(enter(directory, "."));
        while (!levels_.empty()) {
            Level& level = levels_.back();
            if (level.below.empty()) {
                leave();
                continue;
            }
            const std::string name = std::move(level.below.back());
            level.below.pop_back();
            TRY(enter(level.directory.get(), name));
            if (levels_.size() > kKeptOpen + 1) {
                levels_[levels_.size() - 2].directory.reset();
            }
        }
        return usage_;
    }

  private:
    /// Counts a directory and the files in it.
    Status enter(int parent, const std::string& name) {
        Level level{ScopedFd(::openat(parent, name.c_str(), kFlags)), 0, {}};
        struct stat st {};
        if (!level.directory || ::fstat(level.directory.get(), &st) != 0) {
            const bool gone = errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
            return gone && !levels_.empty() ? Status() : Error::from_errno(errno, "open " + name);
        }
        if (levels_.empty()) {
            device_ = st.st_dev;
        } else if (st.st_dev != device_) {
            return {};  // something was mounted there meanwhile
        }
        level.inode = st.st_ino;
        count(st);
        ScopedFd stream(::openat(level.directory.get(), ".", kFlags));
        const std::unique_ptr<DIR, int (*)(DIR*)> entries(
            stream ? ::fdopendir(stream.get()) : nullptr, ::closedir);
        if (entries == nullptr) {
            return Error::from_errno(errno, "read " + name);
        }
        (void)stream.release();
        while (const dirent* entry = ::readdir(entries.get())) {
            const std::string_view found = entry->d_name;
            if (found == "." || found == ".." ||
                ::fstatat(level.directory.get(), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
                st.st_dev != device_) {
                continue;
            }
            if (S_ISDIR(st.st_mode)) {
                level.below.emplace_back(found);
            } else if (st.st_nlink == 1 || seen_.insert(st.st_ino).second) {
                count(st);
            }
        }
        levels_.push_back(std::move(level));
        return {};
    }

    /// Back to the level above.
    void leave() {
        const ScopedFd done = std::move(levels_.back().directory);
        levels_.pop_back();
        if (levels_.empty() || levels_.back().directory) {
            return;
        }
        ScopedFd parent(::openat(done.get(), "..", kFlags));
        struct stat st {};
        if (parent && ::fstat(parent.get(), &st) == 0 && st.st_dev == device_ &&
            st.st_ino == levels_.back().inode) {
            levels_.back().directory = std::move(parent);
            return;
        }
        // It was moved: on with the deepest that is still open.
        while (!levels_.empty() && !levels_.back().directory) {
            levels_.pop_back();
        }
    }

    void count(const struct stat& st) {
        usage_.bytes += static_cast<uint64_t>(st.st_blocks) * 512;
        usage_.inodes++;
    }

    TreeUsage usage_;
    dev_t device_ = 0;
    std::vector<Level> levels_;
    std::set<ino_t> seen_;  ///< of those with several names
};

}  // namespace

Result<TreeUsage> tree_usage(int directory) { return Walk().run(directory); }

}  // namespace moat::runtime
