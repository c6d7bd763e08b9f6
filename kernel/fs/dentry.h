#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "kernel/base/ref_ptr.h"
#include "kernel/fs/inode.h"

namespace moat::kernel {

/// A name in a directory and the inode behind it; with no inode a remembered "there is no such
/// name" (Linux: struct dentry). Holds its parent, and through the root the file system. Name and
/// parent change by rename, under the cache's lock; the inode never does: a name that comes to mean
/// another file gets another dentry.
class Dentry final : public RefCounted {
  public:
    ~Dentry() override;

    Inode* inode() const { return inode_.get(); }
    const RefPtr<Inode>& inode_ref() const { return inode_; }
    bool is_negative() const { return !inode_; }
    FileSystem& file_system() const { return *fs_; }
    bool is_root() const { return is_root_; }
    std::string name() const;
    /// Null for a root.
    RefPtr<Dentry> parent() const;
    /// Unlinked: no path leads here any more.
    bool is_deleted() const { return deleted_.load(std::memory_order_relaxed); }

    /// Whether something may be mounted here (in any namespace); mount.cc counts.
    bool is_mountpoint() const { return mounts_.load(std::memory_order_acquire) != 0; }
    void add_mount() const { mounts_.fetch_add(1, std::memory_order_acq_rel); }
    void remove_mount() const { mounts_.fetch_sub(1, std::memory_order_acq_rel); }

    /// The way from the root dentry: "/a/b"; "/" for the root itself.
    std::string path_in_file_system() const;
    /// Whether `this` is `other` or above it.
    bool is_ancestor_of(const Dentry& other) const;

    /// A dentry that no lookup finds: memfd_create(2), O_TMPFILE. It counts as deleted.
    static RefPtr<Dentry> make_detached(FileSystem& fs, RefPtr<Inode> inode, std::string name);

  private:
    friend class DentryCache;
    friend class FileSystem;
    Dentry(RefPtr<FileSystem> owned_fs, FileSystem& fs, RefPtr<Dentry> parent, std::string name,
           RefPtr<Inode> inode);
    void last_unref() override;

    RefPtr<FileSystem> owned_fs_;  // roots only: everything below holds its root
    FileSystem* fs_;
    RefPtr<Dentry> parent_;  // the cache's lock
    std::string name_;       // the cache's lock
    RefPtr<Inode> inode_;    // immutable
    bool is_root_;
    std::atomic<bool> deleted_{false};
    mutable std::atomic<uint32_t> mounts_{0};

    // The cache's, under its lock
    bool hashed_ = false;
    size_t hash_ = 0;
    Dentry* next_in_bucket_ = nullptr;
    Dentry* newer_ = nullptr;
    Dentry* older_ = nullptr;
    uint64_t version_ = 0;  // of a directory: names under it have changed this often
};

/// What is known of names, one for the sentry. Holds a reference to each dentry in it and gives up
/// the least recently used beyond a bound, but only those that nobody else holds. Every function
/// takes and leaves the one lock (rank kDentryTree); none calls into a file system.
class DentryCache {
  public:
    /// The cached dentry of `name`, perhaps negative; null: not known.
    static RefPtr<Dentry> find(Dentry& directory, std::string_view name);
    /// Changes whenever names below `directory` do; to be read before asking the file system.
    static uint64_t version(Dentry& directory);
    /// Remembers what the file system answered (a null inode: ENOENT), unless names have changed
    /// since `version`: then null, and the caller asks again. A dentry already there with the same
    /// inode is kept.
    static RefPtr<Dentry> insert(Dentry& directory, std::string_view name, RefPtr<Inode> inode,
                                 uint64_t version);
    /// How often any name of any directory has changed; to be read before a walk of several names.
    static uint64_t changes();
    /// Remembers a name that an answer held beyond the one asked for, unless any name has changed
    /// since `changes` or it is known already: then null.
    static RefPtr<Dentry> insert_ahead(Dentry& directory, std::string_view name,
                                       RefPtr<Inode> inode, uint64_t changes);
    /// A name was made by us: replaces what was known.
    static RefPtr<Dentry> insert_new(Dentry& directory, std::string_view name, RefPtr<Inode> inode);
    /// The name is gone (unlink, rmdir): `dentry` is taken out and counts as deleted.
    static void remove(Dentry& dentry);
    /// Forgets what is known, without the dentry counting as deleted.
    static void forget(Dentry& dentry);
    static void forget_name(Dentry& directory, std::string_view name);
    /// After a rename: `dentry` is now `name` in `directory`; what was there counts as deleted.
    static void move(Dentry& dentry, Dentry& directory, std::string_view name);
    static void exchange(Dentry& a, Dentry& b);
    /// At umount: gives up all that nobody else holds of `fs`.
    static void forget_file_system(FileSystem& fs);
    static size_t size();
    /// The bound; for tests.
    static void set_limit(size_t limit);

  private:
    static Dentry* find_locked(Dentry& directory, std::string_view name, size_t hash);
    static RefPtr<Dentry> add_locked(Dentry& directory, std::string_view name, RefPtr<Inode> inode,
                                     std::vector<RefPtr<Dentry>>& dropped);
    static void link_newest_locked(Dentry& d);
    static void unlink_age_locked(Dentry& d);
    static void touch_locked(Dentry& d);
    static void hash_locked(Dentry& d);
    /// The cache's own reference; null: it was not hashed.
    static RefPtr<Dentry> unhash_locked(Dentry& d);
    static void evict_locked(std::vector<RefPtr<Dentry>>& dropped);
};

}  // namespace moat::kernel
