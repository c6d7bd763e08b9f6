#include <fcntl.h>

#include "kernel/fs/tmpfs/tmpfs.h"

namespace moat::kernel {

namespace {

constexpr uint32_t kRenameNoReplace = 1;
constexpr uint32_t kRenameExchange = 2;

class TmpfsDirectoryFile final : public DirectoryFile {
  public:
    TmpfsDirectoryFile(RefPtr<TmpfsDirectory> inode, uint32_t flags)
        : DirectoryFile(flags), inode_(std::move(inode)) {}
    Status sync(Task&, bool) override { return {}; }

  private:
    Result<std::vector<DirectoryEntry>> list(Task&) override {
        inode_->touch_accessed();
        return inode_->entries();
    }
    const RefPtr<TmpfsDirectory> inode_;
};

}  // namespace

// Linux's tmpfs counts 20 bytes an entry (BOGO_DIRENT_SIZE).
int64_t TmpfsDirectory::size_now() {
    MutexLock lock(tmpfs().tree_mu_);
    return 40 + 20 * static_cast<int64_t>(entries_.size());
}

RefPtr<TmpfsInode> TmpfsDirectory::find(std::string_view name) {
    MutexLock lock(tmpfs().tree_mu_);
    const auto it = entries_.find(name);
    return it == entries_.end() ? nullptr : it->second;
}

Result<RefPtr<Inode>> TmpfsDirectory::lookup(Task&, std::string_view name) {
    RefPtr<TmpfsInode> inode = find(name);
    if (!inode) {
        return Errno(ENOENT);
    }
    return RefPtr<Inode>(std::move(inode));
}

std::vector<DirectoryEntry> TmpfsDirectory::entries() {
    std::vector<DirectoryEntry> list;
    MutexLock lock(tmpfs().tree_mu_);
    list.reserve(entries_.size());
    for (const auto& [name, inode] : entries_) {
        list.push_back({name, inode->origin_ino != 0 ? inode->origin_ino : inode->ino(),
                        directory_type(inode->type())});
    }
    return list;
}

bool TmpfsDirectory::empty() {
    MutexLock lock(tmpfs().tree_mu_);
    return entries_.empty();
}

Status TmpfsDirectory::insert_locked(std::string_view name, RefPtr<TmpfsInode> inode) {
    if (removed_) {
        return Errno(ENOENT);
    }
    TmpfsInode& added = *inode;
    if (!entries_.emplace(std::string(name), std::move(inode)).second) {
        return Errno(EEXIST);
    }
    if (added.is_directory()) {
        static_cast<TmpfsDirectory&>(added).parent_ = this;
        nlink_.fetch_add(1, std::memory_order_relaxed);
    }
    return {};
}

RefPtr<TmpfsInode> TmpfsDirectory::erase_locked(Entries::iterator it) {
    RefPtr<TmpfsInode> gone = std::move(it->second);
    entries_.erase(it);
    if (gone->is_directory()) {
        nlink_.fetch_sub(1, std::memory_order_relaxed);
    }
    return gone;
}

Status TmpfsDirectory::insert(std::string_view name, RefPtr<TmpfsInode> inode) {
    {
        MutexLock lock(tmpfs().tree_mu_);
        if (const Status inserted = insert_locked(name, inode); !inserted.ok()) {
            return inserted;
        }
    }
    touch_modified();
    return {};
}

Result<RefPtr<Inode>> TmpfsDirectory::add(std::string_view name, Result<RefPtr<TmpfsInode>> made) {
    RefPtr<TmpfsInode> inode = TRY(std::move(made));
    TRY(insert(name, inode));
    return RefPtr<Inode>(std::move(inode));
}

Result<RefPtr<Inode>> TmpfsDirectory::create(Task&, std::string_view name, const NewInode& what) {
    return add(name, tmpfs().make_inode(what));
}

Result<RefPtr<Inode>> TmpfsDirectory::make_directory(Task&, std::string_view name,
                                                     const NewInode& what) {
    return add(name, tmpfs().make_inode(what));
}

Result<RefPtr<Inode>> TmpfsDirectory::make_symlink(Task&, std::string_view name,
                                                   std::string_view target, const NewInode& what) {
    return add(name, tmpfs().make_symlink_inode(target, what));
}

Result<RefPtr<Inode>> TmpfsDirectory::create_unnamed(Task&, const NewInode& what) {
    RefPtr<TmpfsInode> inode = TRY(tmpfs().make_inode(what));
    inode->nlink_ = 0;
    return RefPtr<Inode>(std::move(inode));
}

Status TmpfsDirectory::link(Task&, std::string_view name, Inode& target) {
    auto& inode = static_cast<TmpfsInode&>(target);
    {
        MutexLock lock(tmpfs().tree_mu_);
        if (inode.nlink() == 0 && !inode.linkable_) {
            return Errno(ENOENT);
        }
        TRY(insert_locked(name, RefPtr<TmpfsInode>(&inode)));
        inode.nlink_.fetch_add(1, std::memory_order_relaxed);
        inode.linkable_ = false;
    }
    inode.touch_changed();
    touch_modified();
    return {};
}

Status TmpfsDirectory::unlink(Task&, std::string_view name, Inode& victim) {
    RefPtr<TmpfsInode> gone;  // dropped without the lock
    {
        MutexLock lock(tmpfs().tree_mu_);
        const auto it = entries_.find(name);
        if (it == entries_.end() || it->second.get() != &victim) {
            return Errno(ENOENT);
        }
        if (victim.is_directory()) {
            return Errno(EISDIR);
        }
        gone = erase_locked(it);
        gone->nlink_.fetch_sub(1, std::memory_order_relaxed);
    }
    gone->touch_changed();
    touch_modified();
    return {};
}

Status TmpfsDirectory::remove_directory(Task&, std::string_view name, Inode& victim) {
    RefPtr<TmpfsInode> gone;
    {
        MutexLock lock(tmpfs().tree_mu_);
        const auto it = entries_.find(name);
        if (it == entries_.end() || it->second.get() != &victim) {
            return Errno(ENOENT);
        }
        if (!victim.is_directory()) {
            return Errno(ENOTDIR);
        }
        auto& directory = static_cast<TmpfsDirectory&>(victim);
        if (!directory.entries_.empty()) {
            return Errno(ENOTEMPTY);
        }
        gone = erase_locked(it);
        directory.removed_ = true;
        directory.nlink_ = 0;
    }
    touch_modified();
    return {};
}

Status TmpfsDirectory::rename(Task&, std::string_view old_name, Inode& new_inode,
                              std::string_view new_name, uint32_t flags) {
    if ((flags & ~(kRenameNoReplace | kRenameExchange)) != 0) {
        return Errno(EINVAL);
    }
    auto& to = static_cast<TmpfsDirectory&>(new_inode);
    RefPtr<TmpfsInode> replaced;
    RefPtr<TmpfsInode> moved;
    {
        MutexLock lock(tmpfs().tree_mu_);
        const auto source = entries_.find(old_name);
        if (source == entries_.end() || to.removed_) {
            return Errno(ENOENT);
        }
        moved = source->second;
        const auto loops = [](TmpfsInode& what, TmpfsDirectory& below) {
            if (!what.is_directory()) {
                return false;
            }
            for (TmpfsDirectory* d = &below;; d = d->parent_) {
                if (d == &what) {
                    return true;
                }
                if (d->parent_ == d || d->parent_ == nullptr) {
                    return false;
                }
            }
        };
        if (loops(*moved, to)) {
            return Errno(EINVAL);
        }
        const auto target = to.entries_.find(new_name);
        if ((flags & kRenameExchange) != 0) {
            if (target == to.entries_.end()) {
                return Errno(ENOENT);
            }
            if (loops(*target->second, *this)) {
                return Errno(EINVAL);
            }
            replaced = target->second;
            std::swap(source->second, target->second);
            if (moved->is_directory()) {
                static_cast<TmpfsDirectory&>(*moved).parent_ = &to;
                nlink_.fetch_sub(1, std::memory_order_relaxed);
                to.nlink_.fetch_add(1, std::memory_order_relaxed);
            }
            if (replaced->is_directory()) {
                static_cast<TmpfsDirectory&>(*replaced).parent_ = this;
                to.nlink_.fetch_sub(1, std::memory_order_relaxed);
                nlink_.fetch_add(1, std::memory_order_relaxed);
            }
        } else {
            if (target != to.entries_.end()) {
                if ((flags & kRenameNoReplace) != 0) {
                    return Errno(EEXIST);
                }
                if (target->second == moved) {
                    return {};  // two names of one file: rename(2) does nothing
                }
                if (moved->is_directory() != target->second->is_directory()) {
                    return Errno(moved->is_directory() ? ENOTDIR : EISDIR);
                }
                if (target->second->is_directory()) {
                    auto& victim = static_cast<TmpfsDirectory&>(*target->second);
                    if (!victim.entries_.empty()) {
                        return Errno(ENOTEMPTY);
                    }
                    victim.removed_ = true;
                    victim.nlink_ = 0;
                } else {
                    target->second->nlink_.fetch_sub(1, std::memory_order_relaxed);
                }
                replaced = to.erase_locked(target);
            }
            // Inserting may move `source`'s bucket, not its node; found again all the same, by
            // name.
            erase_locked(entries_.find(old_name));
            CHECK(to.insert_locked(new_name, moved).ok());
        }
    }
    moved->touch_changed();
    touch_modified();
    if (&to != this) {
        to.touch_modified();
    }
    if (replaced) {
        replaced->touch_changed();
    }
    return {};
}

Result<RefPtr<File>> TmpfsDirectory::open(Task&, const Path&, uint32_t flags) {
    return RefPtr<File>(make_ref<TmpfsDirectoryFile>(RefPtr<TmpfsDirectory>(this), flags));
}

}  // namespace moat::kernel
