#pragma once

// A writable file system made of a tmpfs (the upper layer) over file systems that never change (the
// lower layers, the first one on top). What is written is copied up first, whole; what is removed
// is remembered as a whiteout. Like Linux's overlayfs without redirect_dir, metacopy and index:
//  - renaming a directory that a lower layer has a part in gives EXDEV, and mv(1) then copies it;
//  - hard links of a lower layer become separate files when one of them is copied up;
//  - a mapping made before a copy-up goes on showing the lower file.
// Unlike there, descriptors opened for reading before a copy-up see the upper file from then on (as
// on Linux from 4.19 on), and inode numbers stay as they were.

#include <atomic>
#include <unordered_map>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/fs/directory_file.h"
#include "kernel/fs/inode.h"
#include "kernel/fs/regular_file.h"
#include "kernel/fs/tmpfs/tmpfs.h"

namespace moat::kernel {

class OverlayInode;

class OverlayFileSystem final : public FileSystem {
  public:
    /// `lowers`: the topmost first, at least one; none may change while the overlay lives.
    static RefPtr<OverlayFileSystem> create(RefPtr<TmpfsFileSystem> upper,
                                            std::vector<RefPtr<FileSystem>> lowers);
    ~OverlayFileSystem() override;

    const char* type_name() const override { return "overlay"; }
    RefPtr<Inode> root() override;
    Result<struct statfs> statistics() override;
    TmpfsFileSystem& upper() const { return *upper_; }

  private:
    friend class OverlayInode;
    OverlayFileSystem(RefPtr<TmpfsFileSystem> upper, std::vector<RefPtr<FileSystem>> lowers);

    const RefPtr<TmpfsFileSystem> upper_;
    const std::vector<RefPtr<FileSystem>> lowers_;
    /// Holds still the upper layer's names and whiteouts, and which inodes have an upper part.
    /// Never held while a lower layer is asked for anything.
    Mutex<LockRank::kRename> mu_;
    Mutex<LockRank::kFileSystem> cache_mu_;
    /// Inodes in use, by their upper and their topmost lower inode. Not owned: they unregister.
    std::unordered_map<const Inode*, OverlayInode*> cache_ GUARDED_BY(cache_mu_);
};

class OverlayInode final : public Inode {
  public:
    ~OverlayInode() override;

    Result<InodeAttributes> attributes() override;
    Result<InodeOwner> owner() override;
    Status set_attributes(const AttributeChange& change) override;
    Result<RefPtr<Inode>> lookup(Task& task, std::string_view name) override;
    Status walk(Task& task, const std::vector<std::string_view>& names, Intent intent,
                std::vector<RefPtr<Inode>>& found) override;
    Result<RefPtr<Inode>> create(Task& task, std::string_view name, const NewInode& what) override;
    Result<RefPtr<Inode>> make_directory(Task& task, std::string_view name,
                                         const NewInode& what) override;
    Result<RefPtr<Inode>> make_symlink(Task& task, std::string_view name, std::string_view target,
                                       const NewInode& what) override;
    Result<RefPtr<Inode>> create_unnamed(Task& task, const NewInode& what) override;
    void allow_first_link() override;
    Status link(Task& task, std::string_view name, Inode& target) override;
    Status unlink(Task& task, std::string_view name, Inode& victim) override;
    Status remove_directory(Task& task, std::string_view name, Inode& victim) override;
    Status rename(Task& task, std::string_view old_name, Inode& new_directory,
                  std::string_view new_name, uint32_t flags) override;
    Result<std::string> read_link(Task& task) override;
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override;
    Result<std::string> get_xattr(Task& task, const std::string& name) override;
    Status set_xattr(Task& task, const std::string& name, std::string_view value,
                     int flags) override;
    Status remove_xattr(Task& task, const std::string& name) override;
    Result<std::vector<std::string>> list_xattrs(Task& task) override;

    OverlayFileSystem& overlay() const { return static_cast<OverlayFileSystem&>(file_system()); }
    /// The upper part, which stays once it is there; null: none yet.
    TmpfsInode* upper() const { return upper_.load(std::memory_order_acquire); }
    TmpfsRegular* upper_regular() const { return static_cast<TmpfsRegular*>(upper()); }
    bool has_lower() const { return !lowers_.empty(); }
    /// Makes the upper part, with those of all directories above. ENOSPC; EIO from the gofer.
    Status copy_up();
    /// The merged entries of a directory.
    Result<std::vector<DirectoryEntry>> list(Task& task);

  private:
    friend class OverlayFileSystem;
    OverlayInode(OverlayFileSystem& fs, uint32_t type, RefPtr<OverlayInode> parent,
                 std::string name, RefPtr<TmpfsInode> upper, std::vector<RefPtr<Inode>> lowers);
    void last_unref() override;

    TmpfsDirectory* upper_directory() const { return static_cast<TmpfsDirectory*>(upper()); }
    RefPtr<OverlayInode> wrap(std::string_view name, RefPtr<TmpfsInode> upper,
                              std::vector<RefPtr<Inode>> lowers);
    enum class InUpper : uint8_t { kFound, kHidden, kUnknown };
    InUpper find_upper(std::string_view name, RefPtr<TmpfsInode>& found, bool& merges);
    Result<std::vector<RefPtr<Inode>>> find_lowers(Task& task, std::string_view name);
    Result<RefPtr<OverlayInode>> find(Task& task, std::string_view name);
    Result<RefPtr<Inode>> add(std::string_view name, Result<RefPtr<TmpfsInode>> made);
    Status copy_up_self();
    Result<RefPtr<TmpfsInode>> make_copy();
    Result<bool> is_empty(Task& task);
    void hide_lower_locked(std::string_view name);

    // Immutable. Where a lower file is; says nothing once it has an upper part, which may be
    // renamed.
    const RefPtr<OverlayInode> parent_;
    const std::string name_;
    const std::vector<RefPtr<Inode>> lowers_;  // of a directory perhaps several
    RefPtr<TmpfsInode> upper_ref_;             // set once, under the file system's lock
    std::atomic<TmpfsInode*> upper_;           // upper_ref_.get(), for readers without the lock
    bool unlinked_ = false;                    // the file system's lock
};

}  // namespace moat::kernel
