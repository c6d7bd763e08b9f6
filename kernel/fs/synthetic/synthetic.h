#pragma once

// Files that are made up on the spot: the common ground of proc, sysfs, devtmpfs, devpts, cgroupfs.
//
// A file system of this kind is a tree of small inodes whose contents come from functions. Nothing
// here is stored: what a guest reads is produced at that moment, for the reading task.

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/fs/directory_file.h"
#include "kernel/fs/inode.h"

namespace moat::kernel {

/// A mounted synthetic file system. Owns its root; counts inode numbers.
class SyntheticFileSystem : public FileSystem {
  public:
    /// `type` is static text; `magic` as in linux/magic.h.
    SyntheticFileSystem(const char* type, uint32_t magic);

    const char* type_name() const override { return type_; }
    RefPtr<Inode> root() override { return root_; }
    Result<struct statfs> statistics() override;
    bool dentries_are_stable() const override { return stable_; }

    /// Called once, before the file system is shared.
    void set_root(RefPtr<Inode> root) { root_ = std::move(root); }
    void set_dentries_stable(bool stable) { stable_ = stable; }
    uint64_t next_ino() { return next_ino_.fetch_add(1, std::memory_order_relaxed); }
    /// When it was made: the times of files that have no better ones.
    const timespec& made_at() const { return made_at_; }

  private:
    const char* type_;
    uint32_t magic_;
    bool stable_ = true;  // immutable once shared
    RefPtr<Inode> root_;  // immutable once shared
    std::atomic<uint64_t> next_ino_{1};
    timespec made_at_;
};

/// An inode with fixed attributes in memory. `chmod` and `chown` work where `changeable`, and give
/// EPERM elsewhere, as proc does.
class SyntheticInode : public Inode {
  public:
    SyntheticInode(SyntheticFileSystem& fs, uint32_t mode, uint64_t ino = 0);

    Result<InodeAttributes> attributes() override;
    Status set_attributes(const AttributeChange& change) override;

    uint64_t ino() const { return ino_; }
    void set_owner(uint32_t uid, uint32_t gid);
    void set_rdev(uint64_t rdev) { rdev_ = rdev; }
    void set_changeable() { changeable_ = true; }
    SyntheticFileSystem& synthetic_fs() const {
        return static_cast<SyntheticFileSystem&>(file_system());
    }

  protected:
    virtual uint32_t link_count() { return is_directory() ? 2 : 1; }
    virtual int64_t content_size() { return 0; }

  private:
    const uint64_t ino_;
    uint64_t rdev_ = 0;        // immutable once shared
    bool changeable_ = false;  // immutable once shared
    mutable Mutex<LockRank::kInodeAttributes> attributes_mu_;
    uint32_t mode_ GUARDED_BY(attributes_mu_);
    uint32_t uid_ GUARDED_BY(attributes_mu_) = 0;
    uint32_t gid_ GUARDED_BY(attributes_mu_) = 0;
    timespec atime_ GUARDED_BY(attributes_mu_), mtime_ GUARDED_BY(attributes_mu_),
        ctime_ GUARDED_BY(attributes_mu_);
};

// ---------------------------------------------------------------- text files

/// Produces the whole content for the reading task. An error is what read(2) gives.
using TextSource = std::function<Result<std::string>(Task&)>;
/// Takes what one write(2) brought, at most kMaxTextWrite bytes, without trailing newline.
using TextTarget = std::function<Status(Task&, std::string_view)>;
inline constexpr size_t kMaxTextWrite = 64 * 1024;

/// A regular file whose content is generated. Like Linux's seq_file it is produced by the first
/// read and again whenever a read starts at offset 0; reads in between see the same text.
class TextInode : public SyntheticInode {
  public:
    /// Writes are accepted where `target` is set (EINVAL elsewhere, whatever the mode).
    TextInode(SyntheticFileSystem& fs, uint32_t permissions, TextSource source,
              TextTarget target = nullptr, uint64_t ino = 0);
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override;
    /// O_TRUNC on a control file does nothing.
    Status set_attributes(const AttributeChange& change) override;

  private:
    TextSource source_;
    TextTarget target_;
};

/// A file description over a TextSource; for inodes that decide at open.
RefPtr<File> make_text_file(uint32_t flags, const Path& path, TextSource source, TextTarget target);

// ---------------------------------------------------------------- symbolic links

using LinkText = std::function<Result<std::string>(Task&)>;
using LinkTarget = std::function<Result<Path>(Task&)>;

class LinkInode : public SyntheticInode {
  public:
    LinkInode(SyntheticFileSystem& fs, std::string text, uint64_t ino = 0);
    /// `target` may be null; set, it makes a magic link.
    LinkInode(SyntheticFileSystem& fs, LinkText text, LinkTarget target = nullptr,
              uint64_t ino = 0);
    Result<std::string> read_link(Task& task) override { return text_(task); }
    Result<Path> follow_magic_link(Task& task) override;
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override;

  private:
    LinkText text_;
    LinkTarget target_;
};

// ---------------------------------------------------------------- directories

/// What directories have in common; reading them is DirectoryFile's.
class SyntheticDirectory : public SyntheticInode {
  public:
    SyntheticDirectory(SyntheticFileSystem& fs, uint32_t permissions, uint64_t ino = 0);
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override;
    /// Without "." and "..".
    virtual Result<std::vector<DirectoryEntry>> list(Task& task) = 0;
};

/// Names fixed by the kernel; add() may also be called later (devpts).
class StaticDirectory : public SyntheticDirectory {
  public:
    explicit StaticDirectory(SyntheticFileSystem& fs, uint32_t permissions = 0555);
    void add(std::string name, RefPtr<Inode> inode);
    void remove(std::string_view name);
    /// The subdirectory `name`, made if it is missing.
    RefPtr<StaticDirectory> directory(std::string_view name);
    /// Shorthands that make, add and give back nothing.
    void text(std::string name, TextSource source, uint32_t permissions = 0444);
    void text(std::string name, std::string content, uint32_t permissions = 0444);
    void control(std::string name, TextSource source, TextTarget target,
                 uint32_t permissions = 0644);
    void link(std::string name, std::string target);

    Result<RefPtr<Inode>> lookup(Task& task, std::string_view name) override;
    Result<std::vector<DirectoryEntry>> list(Task& task) override;

  protected:
    uint32_t link_count() override;

  private:
    struct Child {
        std::string name;
        RefPtr<Inode> inode;
        uint64_t ino;
    };
    mutable Mutex<LockRank::kInodeDirectory> mu_;
    std::vector<Child> children_ GUARDED_BY(mu_);  // in order of addition
};

/// Names produced by functions, each time anew.
class DynamicDirectory : public SyntheticDirectory {
  public:
    using Lookup = std::function<Result<RefPtr<Inode>>(Task&, std::string_view)>;
    using List = std::function<Result<std::vector<DirectoryEntry>>(Task&)>;
    DynamicDirectory(SyntheticFileSystem& fs, uint32_t permissions, Lookup lookup, List list,
                     uint64_t ino = 0);
    Result<RefPtr<Inode>> lookup(Task& task, std::string_view name) override {
        return lookup_(task, name);
    }
    Result<std::vector<DirectoryEntry>> list(Task& task) override { return list_(task); }

  private:
    Lookup lookup_;
    List list_;
};

/// printf into a std::string.
std::string format_text(const char* format, ...) __attribute__((format(printf, 1, 2)));
void append_text(std::string& to, const char* format, ...) __attribute__((format(printf, 2, 3)));
/// A decimal number that is the whole text, or nothing.
std::optional<int64_t> parse_number(std::string_view text);
/// Appends, escaping space, tab, newline and backslash in octal as /proc/mounts does.
void append_escaped(std::string& to, std::string_view text);

}  // namespace moat::kernel
