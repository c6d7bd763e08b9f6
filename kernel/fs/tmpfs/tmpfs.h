#pragma once

// A file system in memory: volumes of type tmpfs, /dev/shm, memfd_create(2), and the upper layer of
// overlays. Small files lie in the sentry's heap, larger and mapped ones in a memfd each, so that
// they can be mapped by guests and read without a copy through the sentry.

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/fs/directory_file.h"
#include "kernel/fs/inode.h"
#include "kernel/fs/regular_file.h"

namespace moat::kernel {

class TmpfsInode;
class TmpfsDirectory;
class TmpfsRegular;

struct TmpfsOptions {
    uint64_t size = 0;      ///< bytes; 0: half of the machine's memory
    uint64_t inodes = 0;    ///< 0: one for every page of half the machine's memory
    uint32_t mode = 01777;  ///< of the root
    uint32_t uid = 0;
    uint32_t gid = 0;
    /// Of mount(2) and OCI: size=, nr_inodes=, nr_blocks=, mode=, uid=, gid=; those that concern
    /// NUMA and huge pages are accepted without effect. EINVAL.
    static Result<TmpfsOptions> parse(const std::vector<std::string>& options);
};

class TmpfsFileSystem final : public FileSystem {
  public:
    static RefPtr<TmpfsFileSystem> create(const TmpfsOptions& options);
    ~TmpfsFileSystem() override;

    const char* type_name() const override { return "tmpfs"; }
    RefPtr<Inode> root() override;
    RefPtr<TmpfsDirectory> root_directory();
    Result<struct statfs> statistics() override;
    std::string mount_options() const override;

    /// An inode in no directory. ENOSPC: the limit of inodes. For directories, regular files and
    /// special files; symlinks have their own.
    Result<RefPtr<TmpfsInode>> make_inode(const NewInode& what);
    Result<RefPtr<TmpfsInode>> make_symlink_inode(std::string_view target, const NewInode& what);

  private:
    friend class TmpfsInode;
    friend class TmpfsDirectory;
    friend class TmpfsRegular;

    explicit TmpfsFileSystem(const TmpfsOptions& options);
    Status take_inode();
    /// As many of `pages` as the limit allows.
    uint64_t take_pages(uint64_t pages);
    void give_pages(uint64_t pages) { pages_.fetch_sub(pages, std::memory_order_relaxed); }

    const TmpfsOptions options_;
    const uint64_t max_pages_;
    const uint64_t max_inodes_;
    // Atomic: counters only.
    std::atomic<uint64_t> pages_{0};
    std::atomic<uint64_t> inodes_{0};
    std::atomic<uint64_t> next_ino_{1};
    Mutex<LockRank::kInodeDirectory> tree_mu_;  // names of all directories, and link counts
    RefPtr<TmpfsDirectory> root_;               // immutable until destruction
};

class TmpfsInode : public Inode {
  public:
    ~TmpfsInode() override;
    Result<InodeAttributes> attributes() override;
    Result<InodeOwner> owner() override;
    Status set_attributes(const AttributeChange& change) override;
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override;
    Result<std::string> get_xattr(Task& task, const std::string& name) override;
    Status set_xattr(Task& task, const std::string& name, std::string_view value,
                     int flags) override;
    Status remove_xattr(Task& task, const std::string& name) override;
    Result<std::vector<std::string>> list_xattrs(Task& task) override;

    TmpfsFileSystem& tmpfs() const { return static_cast<TmpfsFileSystem&>(file_system()); }
    uint64_t ino() const { return ino_; }
    uint32_t nlink() const { return nlink_.load(std::memory_order_relaxed); }
    void touch_accessed();
    void touch_modified();
    void touch_changed();
    /// O_TMPFILE without O_EXCL: the first link(2) may be made although there is no name.
    void allow_first_link() override { linkable_ = true; }
    /// Times as a copied-up file had them, the change time excepted.
    void set_times(timespec atime, timespec mtime);

    /// For the overlay: the number that the lower file had; 0: born in the upper layer.
    uint64_t origin_ino = 0;

  protected:
    friend class TmpfsFileSystem;
    friend class TmpfsDirectory;
    TmpfsInode(TmpfsFileSystem& fs, const NewInode& what);
    void last_unref() override;
    virtual int64_t size_now() { return 0; }
    virtual uint64_t blocks_now() { return 0; }
    virtual Status set_size(int64_t) { return Errno(EINVAL); }

  private:
    const uint64_t ino_;
    const uint64_t rdev_;
    std::atomic<uint32_t> nlink_{1};       // written under tree_mu_
    bool linkable_ = false;                // tree_mu_
    std::atomic<bool> atime_stale_{true};  // relatime: modified since it was last read
    Mutex<LockRank::kInodeAttributes> mu_;
    uint32_t mode_ GUARDED_BY(mu_);
    uint32_t uid_ GUARDED_BY(mu_);
    uint32_t gid_ GUARDED_BY(mu_);
    timespec atime_ GUARDED_BY(mu_){};
    timespec mtime_ GUARDED_BY(mu_){};
    timespec ctime_ GUARDED_BY(mu_){};
    timespec btime_{};
    std::unique_ptr<std::map<std::string, std::string>> xattrs_ GUARDED_BY(mu_);
};

class TmpfsDirectory final : public TmpfsInode {
  public:
    Result<RefPtr<Inode>> lookup(Task& task, std::string_view name) override;
    Result<RefPtr<Inode>> create(Task& task, std::string_view name, const NewInode& what) override;
    Result<RefPtr<Inode>> make_directory(Task& task, std::string_view name,
                                         const NewInode& what) override;
    Result<RefPtr<Inode>> make_symlink(Task& task, std::string_view name, std::string_view target,
                                       const NewInode& what) override;
    Result<RefPtr<Inode>> create_unnamed(Task& task, const NewInode& what) override;
    Status link(Task& task, std::string_view name, Inode& target) override;
    Status unlink(Task& task, std::string_view name, Inode& victim) override;
    Status remove_directory(Task& task, std::string_view name, Inode& victim) override;
    Status rename(Task& task, std::string_view old_name, Inode& new_directory,
                  std::string_view new_name, uint32_t flags) override;
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override;

    // Without checks of the VFS, for the overlay.
    /// Null: no such entry.
    RefPtr<TmpfsInode> find(std::string_view name);
    /// EEXIST; ENOENT: this directory was removed.
    Status insert(std::string_view name, RefPtr<TmpfsInode> inode);
    std::vector<DirectoryEntry> entries();
    bool empty();
    /// What an overlay remembers of its upper directories; guarded by the overlay's lock.
    struct OverlayState {
        bool opaque = false;
        std::unordered_set<std::string> whiteouts;
    };
    OverlayState overlay;

  private:
    friend class TmpfsFileSystem;
    struct Hash {
        using is_transparent = void;
        size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
    };
    using Entries = std::unordered_map<std::string, RefPtr<TmpfsInode>, Hash, std::equal_to<>>;

    TmpfsDirectory(TmpfsFileSystem& fs, const NewInode& what) : TmpfsInode(fs, what) { nlink_ = 2; }
    int64_t size_now() override;
    Status insert_locked(std::string_view name, RefPtr<TmpfsInode> inode);
    RefPtr<TmpfsInode> erase_locked(Entries::iterator it);
    Result<RefPtr<Inode>> add(std::string_view name, Result<RefPtr<TmpfsInode>> made);

    // tree_mu_
    Entries entries_;
    TmpfsDirectory* parent_ = nullptr;
    bool removed_ = false;
};

class TmpfsSymlink final : public TmpfsInode {
  public:
    Result<std::string> read_link(Task&) override { return target_; }

  private:
    friend class TmpfsFileSystem;
    TmpfsSymlink(TmpfsFileSystem& fs, std::string_view target, const NewInode& what)
        : TmpfsInode(fs, what), target_(target) {}
    int64_t size_now() override { return static_cast<int64_t>(target_.size()); }
    const std::string target_;
};

/// Contents: in `small_` until the file grows or is mapped, from then on in a memfd, which alone
/// says what the pages hold; the size is kept here too.
class TmpfsRegular final : public TmpfsInode {
  public:
    ~TmpfsRegular() override;
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override;

    int64_t size() const { return size_.load(std::memory_order_acquire); }
    Result<size_t> read_at(IoBuffer& destination, int64_t offset);
    /// Writes at `offset`, or at the end when it is negative. `end`: the position afterwards. Short
    /// when the file system is full; ENOSPC when nothing fits, EFBIG beyond the largest size, EPERM
    /// sealed.
    Result<size_t> write_at(IoBuffer& source, int64_t offset, int64_t& end);
    Status resize(int64_t size);
    Status allocate(int mode, int64_t offset, int64_t size);
    Result<int64_t> seek_data(int64_t offset, int whence);
    /// The memfd; moves the contents there if they are not yet. Valid as long as the inode.
    Result<int> host_fd();
    /// fcntl(2) F_ADD_SEALS, F_GET_SEALS; only memfd_create(MFD_ALLOW_SEALING) makes them allowed.
    void allow_seals() { seals_ = 0; }
    Status add_seals(uint32_t seals);
    uint32_t seals();
    /// For copying up: fills an empty file from a host descriptor.
    Status copy_from_host(int fd, int64_t size);

  private:
    friend class TmpfsFileSystem;
    TmpfsRegular(TmpfsFileSystem& fs, const NewInode& what);
    int64_t size_now() override { return size(); }
    uint64_t blocks_now() override;
    Status set_size(int64_t size) override { return resize(size); }
    Status migrate_locked();
    bool is_host_locked() const { return memfd_.valid(); }
    void true_up_locked();
    Result<uint64_t> reserve_locked(int64_t offset, uint64_t size);
    Result<size_t> write_small_locked(IoBuffer& source, int64_t offset, size_t n);
    Result<size_t> write_host_locked(IoBuffer& source, int64_t offset, size_t n);

    Mutex<LockRank::kInodeData> mu_;
    std::vector<char> small_ GUARDED_BY(mu_);
    ScopedFd memfd_ GUARDED_BY(mu_);         // once there, it stays
    std::atomic<int> host_fd_{-1};           // memfd_.get(), for readers without the lock
    std::atomic<int64_t> size_{0};           // written under mu_
    uint64_t charged_ GUARDED_BY(mu_) = 0;   // pages
    int64_t dense_end_ GUARDED_BY(mu_) = 0;  // all pages below have been written and are charged
    uint32_t seals_ GUARDED_BY(mu_);
};

/// memfd_create(2): `name` as the guest gave it. `flags`: MFD_CLOEXEC is the caller's.
Result<RefPtr<File>> make_memfd(Task& task, std::string_view name, uint32_t flags);
/// The same without a task, for shared anonymous memory and the like: an unlinked file of the
/// kernel's own tmpfs.
RefPtr<TmpfsRegular> make_shared_memory();
/// Makes "tmpfs" known.
void register_tmpfs();

}  // namespace moat::kernel
