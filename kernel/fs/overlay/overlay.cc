#include "kernel/fs/overlay/overlay.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#include <unordered_set>

#include "kernel/fs/dentry.h"
#include "kernel/fs/kernel_task.h"
#include "kernel/fs/registry.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr long kOverlayMagic = 0x794c7630;
/// Numbers of files born in the upper layer, apart from those of the layers below.
constexpr uint64_t kUpperBorn = 1ull << 48;
constexpr uint32_t kRenameExchange = 2;

uint64_t upper_ino(const TmpfsInode& inode) {
    return inode.origin_ino != 0 ? inode.origin_ino : kUpperBorn | inode.ino();
}

class Collector final : public DirectorySink {
  public:
    bool add(std::string_view name, uint64_t ino, uint8_t type, int64_t) override {
        if (name != "." && name != "..") {
            entries.push_back({std::string(name), ino, type});
        }
        return true;
    }
    std::vector<DirectoryEntry> entries;
};

}  // namespace

RefPtr<OverlayFileSystem> OverlayFileSystem::create(RefPtr<TmpfsFileSystem> upper,
                                                    std::vector<RefPtr<FileSystem>> lowers) {
    CHECK(!lowers.empty());
    return adopt_ref(new OverlayFileSystem(std::move(upper), std::move(lowers)));
}

OverlayFileSystem::OverlayFileSystem(RefPtr<TmpfsFileSystem> upper,
                                     std::vector<RefPtr<FileSystem>> lowers)
    : upper_(std::move(upper)), lowers_(std::move(lowers)) {}

OverlayFileSystem::~OverlayFileSystem() = default;

RefPtr<Inode> OverlayFileSystem::root() {
    std::vector<RefPtr<Inode>> roots;
    for (const RefPtr<FileSystem>& lower : lowers_) {
        roots.push_back(lower->root());
    }
    RefPtr<TmpfsDirectory> upper_root = upper_->root_directory();
    // The root shows the attributes of the lower one, as the runtime left them.
    if (const auto a = roots.front()->attributes(); a.ok() && upper_root->origin_ino == 0) {
        upper_root->origin_ino = a->ino;
        AttributeChange change;
        change.mode = a->mode & 07777;
        change.uid = a->uid;
        change.gid = a->gid;
        (void)upper_root->set_attributes(change);
        upper_root->set_times(a->atime, a->mtime);
    }
    MutexLock lock(cache_mu_);
    const auto it = cache_.find(upper_root.get());
    if (it != cache_.end() && it->second->try_ref()) {
        RefPtr<Inode> known = adopt_ref(it->second);
        lock.unlock();
        return known;
    }
    auto made =
        adopt_ref(new OverlayInode(*this, S_IFDIR, nullptr, "", upper_root, std::move(roots)));
    cache_.insert_or_assign(upper_root.get(), made.get());
    cache_.insert_or_assign(made->lowers_.front().get(), made.get());
    return made;
}

Result<struct statfs> OverlayFileSystem::statistics() {
    struct statfs st = TRY(upper_->statistics());
    st.f_type = kOverlayMagic;
    return st;
}

OverlayInode::OverlayInode(OverlayFileSystem& fs, uint32_t type, RefPtr<OverlayInode> parent,
                           std::string name, RefPtr<TmpfsInode> upper,
                           std::vector<RefPtr<Inode>> lowers)
    : Inode(fs, type),
      parent_(std::move(parent)),
      name_(std::move(name)),
      lowers_(std::move(lowers)),
      upper_ref_(std::move(upper)),
      upper_(upper_ref_.get()) {}

OverlayInode::~OverlayInode() {
    OverlayFileSystem& fs = overlay();
    MutexLock lock(fs.cache_mu_);
    const auto forget = [&](const Inode* key) {
        const auto it = fs.cache_.find(key);
        if (it != fs.cache_.end() && it->second == this) {
            fs.cache_.erase(it);
        }
    };
    forget(upper());
    if (has_lower()) {
        forget(lowers_.front().get());
    }
}

// Each inode holds its parent: a long chain is taken down in a loop (see Dentry::last_unref).
void OverlayInode::last_unref() {
    static thread_local std::vector<OverlayInode*>* queue = nullptr;
    if (queue != nullptr) {
        queue->push_back(this);
        return;
    }
    std::vector<OverlayInode*> pending{this};
    queue = &pending;
    while (!pending.empty()) {
        OverlayInode* inode = pending.back();
        pending.pop_back();
        delete inode;
    }
    queue = nullptr;
}

RefPtr<OverlayInode> OverlayInode::wrap(std::string_view name, RefPtr<TmpfsInode> upper,
                                        std::vector<RefPtr<Inode>> lowers) {
    OverlayFileSystem& fs = overlay();
    const Inode* const key = upper ? static_cast<const Inode*>(upper.get()) : lowers.front().get();
    const uint32_t type = upper ? upper->type() : lowers.front()->type();
    MutexLock lock(fs.cache_mu_);
    if (const auto it = fs.cache_.find(key); it != fs.cache_.end() && it->second->try_ref()) {
        RefPtr<OverlayInode> known = adopt_ref(it->second);
        lock.unlock();
        return known;
    }
    auto made = adopt_ref(new OverlayInode(fs, type, RefPtr<OverlayInode>(this), std::string(name),
                                           std::move(upper), std::move(lowers)));
    fs.cache_.insert_or_assign(key, made.get());
    if (made->has_lower()) {
        fs.cache_.insert_or_assign(made->lowers_.front().get(), made.get());
    }
    return made;
}

// ---------------------------------------------------------------- lookup

// kHidden: there is no such entry, whatever the lower layers say. `merges`: `found` is a directory
// which lower ones of the same name shine through.
OverlayInode::InUpper OverlayInode::find_upper(std::string_view name, RefPtr<TmpfsInode>& found,
                                               bool& merges) {
    TmpfsDirectory* const directory = upper_directory();
    merges = false;
    if (directory == nullptr) {
        return InUpper::kUnknown;
    }
    MutexLock lock(overlay().mu_);
    const auto& whiteouts = directory->overlay.whiteouts;
    const bool hidden =
        !has_lower() || (!whiteouts.empty() && whiteouts.contains(std::string(name)));
    found = directory->find(name);
    if (found) {
        merges = found->is_directory() && !hidden;
        return InUpper::kFound;
    }
    return hidden ? InUpper::kHidden : InUpper::kUnknown;
}

Result<std::vector<RefPtr<Inode>>> OverlayInode::find_lowers(Task& task, std::string_view name) {
    std::vector<RefPtr<Inode>> found;
    for (const RefPtr<Inode>& lower : lowers_) {
        auto inode = lower->lookup(task, name);
        if (!inode.ok()) {
            if (inode.error() == ENOENT) {
                continue;
            }
            return inode.error();
        }
        if (!(*inode)->is_directory()) {
            if (found.empty()) {
                found.push_back(std::move(*inode));
            }
            break;  // hides what lies below it
        }
        found.push_back(std::move(*inode));
    }
    return found;
}

Result<RefPtr<OverlayInode>> OverlayInode::find(Task& task, std::string_view name) {
    RefPtr<TmpfsInode> upper;
    bool merges = false;
    switch (find_upper(name, upper, merges)) {
        case InUpper::kHidden:
            return Errno(ENOENT);
        case InUpper::kFound:
            if (!merges) {
                return wrap(name, std::move(upper), {});
            }
            break;
        case InUpper::kUnknown:
            break;
    }
    std::vector<RefPtr<Inode>> lowers = TRY(find_lowers(task, name));
    if (upper) {
        if (!lowers.empty() && !lowers.front()->is_directory()) {
            lowers.clear();
        }
        return wrap(name, std::move(upper), std::move(lowers));
    }
    if (lowers.empty()) {
        return Errno(ENOENT);
    }
    return wrap(name, nullptr, std::move(lowers));
}

Result<RefPtr<Inode>> OverlayInode::lookup(Task& task, std::string_view name) {
    return RefPtr<Inode>(TRY(find(task, name)));
}

Status OverlayInode::walk(Task& task, const std::vector<std::string_view>& names, Intent intent,
                          std::vector<RefPtr<Inode>>& found) {
    RefPtr<TmpfsInode> upper;
    bool merges = false;
    if (lowers_.size() != 1 || find_upper(names.front(), upper, merges) != InUpper::kUnknown) {
        found.push_back(TRY(find(task, names.front())));
        return {};
    }
    // The usual case of a cold name: one lower layer, which may know the whole way.
    std::vector<RefPtr<Inode>> chain;
    const Status walked = lowers_.front()->walk(task, names, intent, chain);
    RefPtr<OverlayInode> at(this);
    for (size_t i = 0; i < chain.size(); i++) {
        if (i > 0 && (at->lowers_.size() != 1 ||
                      at->find_upper(names[i], upper, merges) != InUpper::kUnknown)) {
            return {};  // goes its own way from here; the caller asks again
        }
        at = at->wrap(names[i], nullptr, {std::move(chain[i])});
        found.push_back(at);
    }
    return walked;
}

// ---------------------------------------------------------------- attributes

Result<InodeAttributes> OverlayInode::attributes() {
    if (TmpfsInode* up = upper()) {
        InodeAttributes a = TRY(up->attributes());
        a.ino = upper_ino(*up);
        if (is_directory() && has_lower()) {
            a.nlink = 1;  // as Linux's: nobody counts the directories below a merged one
        }
        return a;
    }
    return lowers_.front()->attributes();
}

Result<InodeOwner> OverlayInode::owner() {
    TmpfsInode* const up = upper();
    return up != nullptr ? up->owner() : lowers_.front()->owner();
}

Status OverlayInode::set_attributes(const AttributeChange& change) {
    TRY(copy_up());
    return upper()->set_attributes(change);
}

Result<std::string> OverlayInode::read_link(Task& task) {
    TmpfsInode* const up = upper();
    return up != nullptr ? up->read_link(task) : lowers_.front()->read_link(task);
}

Result<std::string> OverlayInode::get_xattr(Task& task, const std::string& name) {
    TmpfsInode* const up = upper();
    return up != nullptr ? up->get_xattr(task, name) : lowers_.front()->get_xattr(task, name);
}

Status OverlayInode::set_xattr(Task& task, const std::string& name, std::string_view value,
                               int flags) {
    TRY(copy_up());
    return upper()->set_xattr(task, name, value, flags);
}

Status OverlayInode::remove_xattr(Task& task, const std::string& name) {
    TRY(copy_up());
    return upper()->remove_xattr(task, name);
}

Result<std::vector<std::string>> OverlayInode::list_xattrs(Task& task) {
    TmpfsInode* const up = upper();
    return up != nullptr ? up->list_xattrs(task) : lowers_.front()->list_xattrs(task);
}

// ---------------------------------------------------------------- copying up

Status OverlayInode::copy_up() {
    if (upper() != nullptr) {
        return {};
    }
    std::vector<OverlayInode*> chain;  // each is held by the one before it
    for (OverlayInode* inode = this; inode->upper() == nullptr; inode = inode->parent_.get()) {
        chain.push_back(inode);
    }
    while (!chain.empty()) {
        TRY(chain.back()->copy_up_self());
        chain.pop_back();
    }
    return {};
}

Result<RefPtr<TmpfsInode>> OverlayInode::make_copy() {
    Task& task = kernel_task();
    Inode& lower = *lowers_.front();
    const InodeAttributes a = TRY(lower.attributes());
    const NewInode what{a.mode, a.uid, a.gid, a.rdev};
    TmpfsFileSystem& fs = *overlay().upper_;
    RefPtr<TmpfsInode> copy = is_symlink()
                                  ? TRY(fs.make_symlink_inode(TRY(lower.read_link(task)), what))
                                  : TRY(fs.make_inode(what));
    if (is_regular() && a.size != 0) {
        RefPtr<File> file = TRY(lower.open(task, Path(), O_RDONLY));
        const MapSource source = TRY(file->map_source(task, PROT_READ, false));
        CHECK(source.offset_shift == 0);
        TRY(static_cast<TmpfsRegular&>(*copy).copy_from_host(source.host_fd, a.size));
    }
    if (const auto names = lower.list_xattrs(task); names.ok()) {
        for (const std::string& name : *names) {
            if (name.starts_with("trusted.overlay.") || name.starts_with("system.")) {
                continue;
            }
            if (const auto value = lower.get_xattr(task, name); value.ok()) {
                TRY(copy->set_xattr(task, name, *value, 0));
            }
        }
    }
    copy->set_times(a.atime, a.mtime);
    copy->origin_ino = a.ino;
    return copy;
}

Status OverlayInode::copy_up_self() {
    if (upper() != nullptr) {
        return {};
    }
    RefPtr<TmpfsInode> copy = TRY(make_copy());
    OverlayFileSystem& fs = overlay();
    MutexLock lock(fs.mu_);
    if (upper() != nullptr) {
        lock.unlock();  // somebody else was faster: theirs counts
        return {};
    }
    if (!unlinked_) {
        // Copying up is no change that the directory's times should show.
        TmpfsDirectory& parent = *parent_->upper_directory();
        const InodeAttributes before = TRY(parent.attributes());
        TRY(parent.insert(name_, copy));
        parent.set_times(before.atime, before.mtime);
        if (!is_directory()) {
            parent_->hide_lower_locked(name_);
        }
    }
    {
        MutexLock cache_lock(fs.cache_mu_);
        fs.cache_.insert_or_assign(copy.get(), this);
    }
    upper_ref_ = std::move(copy);
    upper_.store(upper_ref_.get(), std::memory_order_release);
    return {};
}

// ---------------------------------------------------------------- changing names

void OverlayInode::hide_lower_locked(std::string_view name) {
    if (has_lower()) {
        upper_directory()->overlay.whiteouts.emplace(name);
    }
}

// A whiteout of the name stays behind what is made: it hides the lower file once this one is gone,
// and makes a directory opaque.
Result<RefPtr<Inode>> OverlayInode::add(std::string_view name, Result<RefPtr<TmpfsInode>> made) {
    RefPtr<TmpfsInode> inode = TRY(std::move(made));
    {
        MutexLock lock(overlay().mu_);
        TRY(upper_directory()->insert(name, inode));
    }
    return RefPtr<Inode>(wrap(name, std::move(inode), {}));
}

Result<RefPtr<Inode>> OverlayInode::create(Task&, std::string_view name, const NewInode& what) {
    TRY(copy_up());
    return add(name, overlay().upper_->make_inode(what));
}

Result<RefPtr<Inode>> OverlayInode::make_directory(Task&, std::string_view name,
                                                   const NewInode& what) {
    TRY(copy_up());
    return add(name, overlay().upper_->make_inode(what));
}

Result<RefPtr<Inode>> OverlayInode::make_symlink(Task&, std::string_view name,
                                                 std::string_view target, const NewInode& what) {
    TRY(copy_up());
    return add(name, overlay().upper_->make_symlink_inode(target, what));
}

Result<RefPtr<Inode>> OverlayInode::create_unnamed(Task& task, const NewInode& what) {
    RefPtr<Inode> made = TRY(overlay().upper_->root_directory()->create_unnamed(task, what));
    return RefPtr<Inode>(wrap("", adopt_ref(static_cast<TmpfsInode*>(made.leak())), {}));
}

void OverlayInode::allow_first_link() {
    if (TmpfsInode* up = upper()) {
        up->allow_first_link();
    }
}

Status OverlayInode::link(Task& task, std::string_view name, Inode& target) {
    auto& linked = static_cast<OverlayInode&>(target);
    TRY(linked.copy_up());
    TRY(copy_up());
    MutexLock lock(overlay().mu_);
    return upper_directory()->link(task, name, *linked.upper());
}

Status OverlayInode::unlink(Task& task, std::string_view name, Inode& victim) {
    auto& gone = static_cast<OverlayInode&>(victim);
    TRY(copy_up());
    MutexLock lock(overlay().mu_);
    if (TmpfsInode* up = gone.upper()) {
        return upper_directory()->unlink(task, name, *up);  // what lies below is hidden already
    }
    if (gone.unlinked_ || gone.parent_.get() != this) {
        return Errno(ENOENT);
    }
    gone.unlinked_ = true;
    hide_lower_locked(name);
    upper_directory()->touch_modified();
    return {};
}

Result<bool> OverlayInode::is_empty(Task& task) { return TRY(list(task)).empty(); }

Status OverlayInode::remove_directory(Task& task, std::string_view name, Inode& victim) {
    auto& gone = static_cast<OverlayInode&>(victim);
    if (!TRY(gone.is_empty(task))) {
        return Errno(ENOTEMPTY);
    }
    TRY(copy_up());
    // Copied up as well, so that nothing can be made in it once it is removed.
    TRY(gone.copy_up());
    MutexLock lock(overlay().mu_);
    TRY(upper_directory()->remove_directory(task, name, *gone.upper()));
    if (gone.has_lower()) {
        hide_lower_locked(name);
    }
    return {};
}

Status OverlayInode::rename(Task& task, std::string_view old_name, Inode& new_directory,
                            std::string_view new_name, uint32_t flags) {
    auto& to = static_cast<OverlayInode&>(new_directory);
    RefPtr<OverlayInode> moved = TRY(find(task, old_name));
    RefPtr<OverlayInode> target;
    if (auto found = to.find(task, new_name); found.ok()) {
        target = std::move(*found);
    } else if (!(found.error() == ENOENT)) {
        return found.error();
    }
    const bool exchange = (flags & kRenameExchange) != 0;
    if (moved->is_directory() && moved->has_lower()) {
        return Errno(EXDEV);
    }
    if (exchange) {
        if (!target) {
            return Errno(ENOENT);
        }
        if (target->is_directory() && target->has_lower()) {
            return Errno(EXDEV);
        }
        TRY(target->copy_up());
    } else if (target && target->is_directory()) {
        if (!moved->is_directory()) {
            return Errno(EISDIR);
        }
        if (!TRY(target->is_empty(task))) {
            return Errno(ENOTEMPTY);
        }
    } else if (target && moved->is_directory()) {
        return Errno(ENOTDIR);
    }
    TRY(moved->copy_up());
    TRY(copy_up());
    TRY(to.copy_up());
    MutexLock lock(overlay().mu_);
    TRY(upper_directory()->rename(task, old_name, *to.upper(), new_name, flags));
    to.hide_lower_locked(new_name);
    if (exchange) {
        hide_lower_locked(old_name);
    }
    if (target && !exchange) {
        target->unlinked_ = true;
    }
    return {};
}

Result<std::vector<DirectoryEntry>> OverlayInode::list(Task& task) {
    std::vector<DirectoryEntry> entries;
    std::unordered_set<std::string> seen;
    if (TmpfsDirectory* up = upper_directory()) {
        MutexLock lock(overlay().mu_);
        entries = up->entries();
        seen.insert(up->overlay.whiteouts.begin(), up->overlay.whiteouts.end());
        lock.unlock();
        for (DirectoryEntry& entry : entries) {
            if (const RefPtr<TmpfsInode> inode = up->find(entry.name)) {
                entry.ino = upper_ino(*inode);
            }
            if (has_lower()) {
                seen.insert(entry.name);
            }
        }
    }
    for (size_t i = 0; i < lowers_.size(); i++) {
        RefPtr<File> directory = TRY(lowers_[i]->open(task, Path(), O_RDONLY | O_DIRECTORY));
        Collector collected;
        TRY(directory->read_directory(task, collected));
        if (seen.empty() && lowers_.size() == 1) {
            return std::move(collected.entries);
        }
        for (DirectoryEntry& entry : collected.entries) {
            if (!seen.contains(entry.name)) {
                if (i + 1 < lowers_.size()) {
                    seen.insert(entry.name);
                }
                entries.push_back(std::move(entry));
            }
        }
    }
    return entries;
}

// ---------------------------------------------------------------- open files

namespace {

class OverlayDirectoryFile final : public DirectoryFile {
  public:
    OverlayDirectoryFile(RefPtr<OverlayInode> inode, uint32_t flags)
        : DirectoryFile(flags), inode_(std::move(inode)) {}
    Status sync(Task&, bool) override { return {}; }

  private:
    Result<std::vector<DirectoryEntry>> list(Task& task) override { return inode_->list(task); }
    const RefPtr<OverlayInode> inode_;
};

/// A regular file: the upper part as soon as there is one, until then the lower file as it was
/// opened, whose donated descriptor serves reads and mappings directly.
class OverlayFile final : public RegularFile {
  public:
    OverlayFile(RefPtr<OverlayInode> inode, RefPtr<File> lower, uint32_t flags)
        : RegularFile(flags), inode_(std::move(inode)), lower_(std::move(lower)) {}

    Result<size_t> pread(Task& task, IoBuffer& destination, int64_t offset) override {
        if (TmpfsRegular* up = inode_->upper_regular()) {
            up->touch_accessed();
            return up->read_at(destination, offset);
        }
        return lower_->pread(task, destination, offset);
    }
    Result<size_t> pwrite(Task& task, IoBuffer& source, int64_t offset) override {
        int64_t end = 0;
        if ((flags() & O_APPEND) != 0) {
            return append(task, source, end);
        }
        TRY(limit_file_size(task, source, offset));
        return inode_->upper_regular()->write_at(source, offset, end);
    }
    Status truncate(Task&, int64_t size) override { return inode_->upper_regular()->resize(size); }
    Status allocate(Task&, int mode, int64_t offset, int64_t size) override {
        return inode_->upper_regular()->allocate(mode, offset, size);
    }
    Status sync(Task&, bool) override { return {}; }
    Result<MapSource> map_source(Task& task, int prot, bool shared) override {
        if (TmpfsRegular* up = inode_->upper_regular()) {
            return MapSource{TRY(up->host_fd()), 0, (flags() & O_ACCMODE) == O_RDWR};
        }
        MapSource source = TRY(lower_->map_source(task, prot, shared));
        source.may_write_shared = false;
        return source;
    }

  private:
    Result<int64_t> size(Task&) override { return TRY(inode_->attributes()).size; }
    Result<size_t> append(Task& task, IoBuffer& source, int64_t& end) override {
        TmpfsRegular& up = *inode_->upper_regular();
        TRY(limit_file_size(task, source, up.size()));
        return up.write_at(source, -1, end);
    }
    Result<int64_t> seek_data(Task& task, int64_t offset, int whence) override {
        if (TmpfsRegular* up = inode_->upper_regular()) {
            return up->seek_data(offset, whence);
        }
        return lower_->seek(task, offset, whence);
    }

    const RefPtr<OverlayInode> inode_;
    const RefPtr<File> lower_;  // null: opened when there was an upper part
};

}  // namespace

Result<RefPtr<File>> OverlayInode::open(Task& task, const Path& path, uint32_t flags) {
    if (is_directory()) {
        return RefPtr<File>(make_ref<OverlayDirectoryFile>(RefPtr<OverlayInode>(this), flags));
    }
    if (!is_regular()) {
        return open_special(task, *this, path, TRY(attributes()).rdev, flags);
    }
    if ((flags & O_ACCMODE) != O_RDONLY) {
        TRY(copy_up());
    }
    RefPtr<File> lower;
    if (upper() == nullptr) {
        lower = TRY(lowers_.front()->open(task, path, flags));
    }
    return RefPtr<File>(make_ref<OverlayFile>(RefPtr<OverlayInode>(this), std::move(lower), flags));
}

}  // namespace moat::kernel
