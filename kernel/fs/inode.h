#pragma once

#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>

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

class Inode;
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
    uint64_t blocks = 0;   ///< of 512 bytes
    uint32_t block_size = 4096;
    timespec atime{}, mtime{}, ctime{}, btime{};
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
    virtual bool dentries_are_stable() const { return true; }
    /// The data part of this file system's line in /proc/mounts, with a leading comma or empty.
    virtual std::string mount_options() const { return ""; }

  protected:
    FileSystem();  // takes the next device number

  private:
    uint64_t device_;
};

/// A file of a file system, whatever its names (Linux: struct inode). Implementations do no
/// permission checks (the VFS does them from attributes()) and never wait, except that the gofer's
/// wait for its answer; no lock of the sentry's is held then.
class Inode : public RefCounted {
  public:
    FileSystem& file_system() const { return *fs_; }
    virtual Result<InodeAttributes> attributes() = 0;
    virtual Status set_attributes(const AttributeChange& change) = 0;
    /// S_IFMT bits; never changes.
    uint32_t type() const { return type_; }
    bool is_directory() const { return type_ == S_IFDIR; }
    bool is_symlink() const { return type_ == S_IFLNK; }
    bool is_regular() const { return type_ == S_IFREG; }

    // Directories. Names are single components, never empty, "." or "..", at most NAME_MAX bytes.
    virtual Result<RefPtr<Inode>> lookup(Task& task, std::string_view name);
    /// Told how a walk goes on before lookup(), so that one request can fetch all of it.
    virtual void prefetch([[maybe_unused]] Task& task,
                          [[maybe_unused]] const std::vector<std::string_view>& names) {}
    /// Regular files, FIFOs, sockets and devices, by mode. EEXIST, ENOSPC, EROFS...
    virtual Result<RefPtr<Inode>> create(Task& task, std::string_view name, const NewInode& what);
    virtual Result<RefPtr<Inode>> make_directory(Task& task, std::string_view name,
                                                 const NewInode& what);
    virtual Result<RefPtr<Inode>> make_symlink(Task& task, std::string_view name,
                                               std::string_view target, const NewInode& what);
    virtual Status link(Task& task, std::string_view name, Inode& target);
    virtual Status unlink(Task& task, std::string_view name, Inode& victim);
    virtual Status remove_directory(Task& task, std::string_view name, Inode& victim);
    /// `flags` as for renameat2(2).
    virtual Status rename(Task& task, std::string_view old_name, Inode& new_directory,
                          std::string_view new_name, uint32_t flags);

    // Symlinks.
    virtual Result<std::string> read_link(Task& task);
    /// Links of /proc that lead to an object, not to a name (/proc/self/exe, fd/N, cwd, root). A null
    /// path: an ordinary link, its text is walked.
    virtual Result<Path> follow_magic_link([[maybe_unused]] Task& task) { return Path(); }

    /// A new description of this file. Called after permission checks; not for symlinks.
    virtual Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) = 0;

    // Extended attributes; EOPNOTSUPP by default.
    virtual Result<std::string> get_xattr(Task& task, const std::string& name);
    virtual Status set_xattr(Task& task, const std::string& name, std::string_view value, int flags);
    virtual Status remove_xattr(Task& task, const std::string& name);
    virtual Result<std::vector<std::string>> list_xattrs(Task& task);

    /// access(2) on file systems with rules of their own (proc). By default the mode bits decide.
    virtual std::optional<Status> check_permission([[maybe_unused]] Task& task,
                                                   [[maybe_unused]] int may) {
        return std::nullopt;
    }

  protected:
    Inode(FileSystem& fs, uint32_t mode) : fs_(&fs), type_(mode & S_IFMT) {}

  private:
    FileSystem* fs_;  // outlives its inodes: mounts and dentries hold it
    uint32_t type_;   // immutable
};

}  // namespace moat::kernel
