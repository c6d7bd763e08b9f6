#pragma once

#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/file.h"
#include "kernel/fs/path.h"

namespace moat::kernel {

class Dentry;
class Inode;
class InodeExtras;
class Task;

/// What stat(2) tells of a file.
struct InodeAttributes {
    uint32_t mode = 0;  ///< type and permissions
    uint32_t uid = 0;
    uint32_t gid = 0;
    uint32_t nlink = 1;
    uint64_t ino = 0;
    uint64_t rdev = 0;
    int64_t size = 0;
    uint64_t blocks = 0;  ///< of 512 bytes
    uint32_t block_size = 4096;
    timespec atime{}, mtime{}, ctime{}, btime{};
};

struct InodeOwner {
    uint32_t mode = 0;
    uint32_t uid = 0;
    uint32_t gid = 0;
};

/// chmod, chown, utimensat, truncate: only the fields that are set change.
struct AttributeChange {
    std::optional<uint32_t> mode;  ///< permission bits only
    std::optional<uint32_t> uid;
    std::optional<uint32_t> gid;
    std::optional<int64_t> size;
    std::optional<timespec> atime;
    std::optional<timespec> mtime;
};

/// Owner and permissions of a file about to be made.
struct NewInode {
    uint32_t mode = 0;  ///< type and permissions, umask already applied
    uint32_t uid = 0;
    uint32_t gid = 0;
    uint64_t rdev = 0;
};

/// One mounted file system (Linux: struct super_block).
class FileSystem : public RefCounted {
  public:
    virtual const char* type_name() const = 0;  ///< as in /proc/filesystems
    virtual RefPtr<Inode> root() = 0;
    virtual Result<struct statfs> statistics() = 0;
    uint64_t device() const { return device_; }  ///< st_dev, unique in the sentry
    /// False: names may come and go without the sentry's doing (proc, a shared gofer mount), so a
    /// cached dentry is asked for again by lookup() before it is believed.
    /// An inode from lookup() with the same attributes().ino and type counts as the same file.
    virtual bool dentries_are_stable() const { return true; }
    /// The data part of this file system's line in /proc/mounts, with a leading comma or empty.
    virtual std::string mount_options() const { return ""; }

    /// The one root dentry that all mounts of this file system share.
    RefPtr<Dentry> root_dentry();
    /// sync(2), syncfs(2).
    virtual Status sync([[maybe_unused]] Task& task) { return {}; }
    ~FileSystem() override;

  protected:
    FileSystem();  // takes the next device number

  private:
    friend class Dentry;
    uint64_t device_;
    Dentry* root_dentry_ = nullptr;  // not owned: it owns us; guarded by the dentry cache's lock
};

/// A file of a file system, whatever its names (Linux: struct inode). Implementations do no
/// permission checks (the VFS does them from attributes()) and never wait, except that the gofer's
/// wait for its answer; no lock of the sentry's is held then.
class Inode : public RefCounted {
  public:
    FileSystem& file_system() const { return *fs_; }
    virtual Result<InodeAttributes> attributes() = 0;
    /// Mode and owner only, for permission checks; by default from attributes().
    virtual Result<InodeOwner> owner();
    virtual Status set_attributes(const AttributeChange& change) = 0;
    /// S_IFMT bits; never changes.
    uint32_t type() const { return type_; }
    bool is_directory() const { return type_ == S_IFDIR; }
    bool is_symlink() const { return type_ == S_IFLNK; }
    bool is_regular() const { return type_ == S_IFREG; }

    // Directories. Names are single components, never empty, "." or "..", at most NAME_MAX bytes.
    virtual Result<RefPtr<Inode>> lookup(Task& task, std::string_view name);
    /// Looks up as much of the chain `names` as it can in one go, appending the inodes found. An
    /// error is that of the component after the last one found; success with fewer than all means
    /// "ask the last one found" (a symlink, a mount of another kind). The default looks up the
    /// first name only. `intent` tells what the walk is for, so that a donated descriptor can come
    /// along.
    enum class Intent : uint8_t { kLookup, kOpenRead };
    virtual Status walk(Task& task, const std::vector<std::string_view>& names, Intent intent,
                        std::vector<RefPtr<Inode>>& found);
    /// Regular files, FIFOs, sockets and devices, by mode. EEXIST, ENOSPC, EROFS...
    virtual Result<RefPtr<Inode>> create(Task& task, std::string_view name, const NewInode& what);
    virtual Result<RefPtr<Inode>> make_directory(Task& task, std::string_view name,
                                                 const NewInode& what);
    virtual Result<RefPtr<Inode>> make_symlink(Task& task, std::string_view name,
                                               std::string_view target, const NewInode& what);
    /// O_TMPFILE: a regular file without a name. EOPNOTSUPP by default.
    virtual Result<RefPtr<Inode>> create_unnamed(Task& task, const NewInode& what);
    virtual Status link(Task& task, std::string_view name, Inode& target);
    /// O_TMPFILE without O_EXCL: link(2) may give it its first name.
    virtual void allow_first_link() {}
    virtual Status unlink(Task& task, std::string_view name, Inode& victim);
    virtual Status remove_directory(Task& task, std::string_view name, Inode& victim);
    /// `flags` as for renameat2(2).
    virtual Status rename(Task& task, std::string_view old_name, Inode& new_directory,
                          std::string_view new_name, uint32_t flags);

    // Symlinks.
    virtual Result<std::string> read_link(Task& task);
    /// Links of /proc that lead to an object, not to a name (/proc/self/exe, fd/N, cwd, root). A
    /// null path: an ordinary link, its text is walked.
    virtual Result<Path> follow_magic_link([[maybe_unused]] Task& task) { return Path(); }

    /// As follow_magic_link(), for objects that have no path (pipes, sockets, epoll behind
    /// /proc/self/fd/N): the description itself; null: not such a link.
    virtual Result<RefPtr<File>> magic_file([[maybe_unused]] Task& task) { return RefPtr<File>(); }

    /// A new description of this file. Called after permission checks; not for symlinks.
    virtual Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) = 0;

    // Extended attributes; EOPNOTSUPP by default.
    virtual Result<std::string> get_xattr(Task& task, const std::string& name);
    virtual Status set_xattr(Task& task, const std::string& name, std::string_view value,
                             int flags);
    virtual Status remove_xattr(Task& task, const std::string& name);
    virtual Result<std::vector<std::string>> list_xattrs(Task& task);

    /// access(2) on file systems with rules of their own (proc). By default the mode bits decide.
    virtual std::optional<Status> check_permission([[maybe_unused]] Task& task,
                                                   [[maybe_unused]] int may) {
        return std::nullopt;
    }

    // Who writes a file keeps others from executing it, and the other way round (Linux:
    // i_writecount). Each says whether it may be, and is then given back. ETXTBSY.
    Status begin_writing();
    void end_writing() { writers_.fetch_sub(1, std::memory_order_relaxed); }
    Status begin_executing();
    void end_executing() { writers_.fetch_add(1, std::memory_order_relaxed); }

    // What other parts of the kernel hang on a file: advisory locks, inotify watches, the pipe of a
    // FIFO, the socket bound to a name. Made when first asked for.
    InodeExtras& extras();
    InodeExtras* extras_if_any() const { return extras_.load(std::memory_order_acquire); }
    ~Inode() override;

  protected:
    Inode(FileSystem& fs, uint32_t mode) : fs_(&fs), type_(mode & S_IFMT) {}

  private:
    FileSystem* fs_;  // outlives its inodes: mounts and dentries hold it
    std::atomic<InodeExtras*> extras_{nullptr};
    uint32_t type_;                    // immutable
    std::atomic<int32_t> writers_{0};  // negative: that many execute it; nothing else depends on it
};

}  // namespace moat::kernel
