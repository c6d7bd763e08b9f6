#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/gofer/gofer.h"
#include "kernel/fs/registry.h"
#include "kernel/time/clock.h"

namespace moat::kernel {

namespace {

/// How long the answer of a walk on a shared mount serves for attributes(): the rest of the same
/// call.
constexpr int64_t kFreshNs = 100'000;

constexpr size_t kMaxWalkPath = gofer::kMaxPath;

timespec to_timespec(const gofer::Timestamp& t) {
    return {static_cast<time_t>(t.seconds), static_cast<long>(t.nanoseconds)};
}

gofer::Timestamp to_timestamp(const timespec& t) {
    return {t.tv_sec, static_cast<uint32_t>(t.tv_nsec), 0};
}

InodeAttributes from_wire(const gofer::Attributes& wire) {
    InodeAttributes a;
    a.mode = wire.mode;
    a.uid = wire.uid;
    a.gid = wire.gid;
    a.nlink = wire.nlink;
    a.ino = wire.ino;
    a.rdev = makedev(wire.rdev_major, wire.rdev_minor);
    a.size = static_cast<int64_t>(wire.size);
    a.blocks = wire.blocks;
    a.block_size = wire.block_size;
    a.atime = to_timespec(wire.access_time);
    a.mtime = to_timespec(wire.modify_time);
    a.ctime = to_timespec(wire.change_time);
    if (wire.has_birth_time != 0) {
        a.btime = to_timespec(wire.birth_time);
    }
    return a;
}

gofer::NewOwner owner_of(const NewInode& what) { return {what.mode & 07777, what.uid, what.gid}; }

}  // namespace

GoferInode::GoferInode(GoferFileSystem& fs, RefPtr<GoferInode> parent, std::string name,
                       const gofer::Attributes& attributes, gofer::NodeId node, uint64_t holds)
    : Inode(fs, attributes.mode),
      parent_(std::move(parent)),
      name_(std::move(name)),
      holds_(holds),
      node_(node),
      attributes_(from_wire(attributes)) {
    fresh_until_.store(fs.exclusive() ? 0 : monotonic_ns() + kFreshNs, std::memory_order_relaxed);
}

GoferInode::~GoferInode() {
    GoferFileSystem& fs = gofer();
    MutexLock lock(fs.mu_);
    if (parent_) {
        const auto it = parent_->children_.find(name_);
        if (it != parent_->children_.end() && it->second == this) {
            parent_->children_.erase(it);
        }
    } else if (fs.root_ == this) {
        fs.root_ = nullptr;
    }
    if (holds_ != 0) {
        fs.to_close_.push_back({node_.load(std::memory_order_relaxed), holds_});
    }
}

// Each inode holds its parent: a long chain is taken down in a loop (see Dentry::last_unref).
void GoferInode::last_unref() {
    static thread_local std::vector<GoferInode*>* queue = nullptr;
    if (queue != nullptr) {
        queue->push_back(this);
        return;
    }
    std::vector<GoferInode*> pending{this};
    queue = &pending;
    while (!pending.empty()) {
        GoferInode* inode = pending.back();
        pending.pop_back();
        delete inode;
    }
    queue = nullptr;
}

// ---------------------------------------------------------------- nodes

Result<gofer::NodeId> GoferInode::node() {
    if (const gofer::NodeId known = node_.load(std::memory_order_acquire); known != 0) {
        return known;
    }
    GoferFileSystem& fs = gofer();
    // Up to the first ancestor with a node, then down in one request.
    RefPtr<GoferInode> base(this);
    std::vector<std::pair<RefPtr<GoferInode>, std::string>> way;
    {
        MutexLock lock(fs.mu_);
        while (base->node_.load(std::memory_order_relaxed) == 0) {
            if (!base->parent_ || base->unlinked_) {
                return Errno(ESTALE);
            }
            way.emplace_back(base, base->name_);
            base = base->parent_;
        }
    }
    std::string path;
    for (auto it = way.rbegin(); it != way.rend(); ++it) {
        path += path.empty() ? "" : "/";
        path += it->second;
    }
    gofer::WalkResult walked = TRY(fs.client().walk(base->node_.load(), path));
    std::vector<gofer::CloseItem> extra;
    {
        MutexLock lock(fs.mu_);
        for (size_t i = 0; i < walked.nodes.size(); i++) {
            const gofer::Node& node = walked.nodes[i];
            GoferInode& inode = *way[way.size() - 1 - i].first;
            if (inode.node_.load(std::memory_order_relaxed) == 0 &&
                (node.attributes.mode & S_IFMT) == inode.type()) {
                inode.holds_ = 1;
                inode.node_.store(node.id, std::memory_order_release);
            } else {
                fs.to_close_.push_back({node.id, 1});
            }
        }
    }
    if (const gofer::NodeId known = node_.load(std::memory_order_acquire); known != 0) {
        return known;
    }
    return Errno(walked.error != 0 ? walked.error : ESTALE);
}

void GoferInode::forget_node() {
    GoferFileSystem& fs = gofer();
    MutexLock lock(fs.mu_);
    if (!parent_) {
        return;
    }
    if (holds_ != 0) {
        fs.to_close_.push_back({node_.load(std::memory_order_relaxed), std::exchange(holds_, 0)});
    }
    node_.store(0, std::memory_order_release);
}

RefPtr<GoferInode> GoferInode::make_child_locked(std::string_view name,
                                                 const gofer::Attributes& attributes,
                                                 gofer::NodeId node) {
    auto child = adopt_ref(new GoferInode(gofer(), RefPtr<GoferInode>(this), std::string(name),
                                          attributes, node, node != 0 ? 1 : 0));
    children_.insert_or_assign(std::string(name), child.get());
    return child;
}

// Takes over one hold on `node`.
RefPtr<GoferInode> GoferInode::adopt_child(std::string_view name, const gofer::Node& node) {
    GoferFileSystem& fs = gofer();
    RefPtr<GoferInode> child;
    {
        MutexLock lock(fs.mu_);
        const auto it = children_.find(std::string(name));
        if (it != children_.end() && it->second->try_ref()) {
            child = adopt_ref(it->second);
            const gofer::NodeId known = child->node_.load(std::memory_order_relaxed);
            const bool same_type = (node.attributes.mode & S_IFMT) == child->type();
            if (known == node.id) {
                fs.to_close_.push_back({node.id, 1});
            } else if (known == 0 && same_type) {
                child->holds_ = 1;
                child->node_.store(node.id, std::memory_order_release);
            } else {
                // Another file has taken the name.
                RefPtr<GoferInode> made = make_child_locked(name, node.attributes, node.id);
                lock.unlock();
                return made;
            }
        } else {
            child = make_child_locked(name, node.attributes, node.id);
            lock.unlock();
            return child;
        }
    }
    child->remember(node.attributes);
    return child;
}

void GoferInode::remember(const gofer::Attributes& wire) {
    {
        MutexLock lock(attributes_mu_);
        attributes_ = from_wire(wire);
    }
    stale_.store(false, std::memory_order_relaxed);
    if (!gofer().exclusive()) {
        fresh_until_.store(monotonic_ns() + kFreshNs, std::memory_order_relaxed);
    }
}

void GoferInode::remember_host(const struct stat& st) {
    MutexLock lock(attributes_mu_);
    attributes_.mode = st.st_mode;
    attributes_.uid = st.st_uid;
    attributes_.gid = st.st_gid;
    attributes_.nlink = static_cast<uint32_t>(st.st_nlink);
    attributes_.size = st.st_size;
    attributes_.blocks = static_cast<uint64_t>(st.st_blocks);
    attributes_.atime = st.st_atim;
    attributes_.mtime = st.st_mtim;
    attributes_.ctime = st.st_ctim;
}

// ---------------------------------------------------------------- walking

GoferInode::Known GoferInode::known_child(std::string_view name, RefPtr<GoferInode>& child) {
    GoferFileSystem& fs = gofer();
    if (!fs.exclusive()) {
        return Known::kUnknown;
    }
    MutexLock lock(fs.mu_);
    const std::string key(name);
    if (const auto it = children_.find(key); it != children_.end() && it->second->try_ref()) {
        child = adopt_ref(it->second);
        return Known::kYes;
    }
    if (listing_ == nullptr) {
        return Known::kUnknown;
    }
    const auto it = listing_->find(key);
    if (it == listing_->end()) {
        return Known::kAbsent;
    }
    child = make_child_locked(name, it->second, 0);
    return Known::kYes;
}

Result<RefPtr<Inode>> GoferInode::lookup(Task& task, std::string_view name) {
    std::vector<RefPtr<Inode>> found;
    const Status walked = walk(task, {name}, Intent::kLookup, found);
    if (found.empty()) {
        return walked.ok() ? Errno(ENOENT) : walked.error();
    }
    return std::move(found.front());
}

Status GoferInode::walk(Task&, const std::vector<std::string_view>& names, Intent intent,
                        std::vector<RefPtr<Inode>>& found) {
    if (!is_directory()) {
        return Errno(ENOTDIR);
    }
    RefPtr<GoferInode> at(this);
    for (const std::string_view name : names) {
        RefPtr<GoferInode> child;
        const Known known = at->known_child(name, child);
        if (known == Known::kAbsent) {
            return Errno(ENOENT);
        }
        if (known == Known::kUnknown) {
            break;
        }
        found.push_back(child);
        if (!child->is_directory()) {
            return {};
        }
        at = std::move(child);
    }
    if (!found.empty()) {
        return {};  // whoever asks goes on from the last one
    }
    std::string path;
    size_t count = 0;
    for (; count < names.size(); count++) {
        if (path.size() + 1 + names[count].size() > kMaxWalkPath) {
            break;
        }
        path += path.empty() ? "" : "/";
        path += names[count];
    }
    const bool opens = intent == Intent::kOpenRead && count == names.size();
    gofer::WalkResult walked = TRY(with_node([&](gofer::NodeId base) {
        return gofer().client().walk(base, path, opens ? O_RDONLY : gofer::kNoOpen);
    }));
    GoferInode* directory = this;
    for (size_t i = 0; i < walked.nodes.size() && i < count; i++) {
        RefPtr<GoferInode> child = directory->adopt_child(names[i], walked.nodes[i]);
        directory = child.get();
        found.push_back(std::move(child));
    }
    if (walked.stop == gofer::WalkStop::kError) {
        return Errno(walked.error != 0 ? walked.error : EIO);
    }
    if (found.empty()) {
        return Errno(EIO);
    }
    if (walked.stop == gofer::WalkStop::kSymlink && directory->is_symlink()) {
        MutexLock lock(directory->attributes_mu_);
        directory->link_target_ = std::move(walked.target);
    } else if (walked.file.valid() && directory->is_regular() && found.size() == names.size()) {
        RefPtr<HostFile> donated = make_ref<HostFile>(std::move(walked.file));
        {
            MutexLock lock(gofer().mu_);
            std::swap(directory->read_file_, donated);
        }
        gofer().note_recent(*directory);
    }
    return {};
}

// ---------------------------------------------------------------- attributes

Result<InodeAttributes> GoferInode::attributes() {
    GoferFileSystem& fs = gofer();
    const bool fixed = fs.exclusive() && !stale_.load(std::memory_order_relaxed);
    const bool gone = node_.load(std::memory_order_acquire) == 0 && is_unlinked();
    if (!fixed && !gone && monotonic_ns() > fresh_until_.load(std::memory_order_relaxed)) {
        RefPtr<HostFile> host;
        {
            MutexLock lock(fs.mu_);
            host = write_file_ ? write_file_ : read_file_;
        }
        struct stat st;
        if (host && fstat(host->fd(), &st) == 0) {
            remember_host(st);
        } else {
            remember(TRY(with_node([&](gofer::NodeId id) { return fs.client().stat(id); })));
        }
    }
    MutexLock lock(attributes_mu_);
    return attributes_;
}

bool GoferInode::is_unlinked() {
    MutexLock lock(gofer().mu_);
    return unlinked_;
}

Result<InodeOwner> GoferInode::owner() {
    if (gofer().exclusive()) {
        MutexLock lock(attributes_mu_);
        return InodeOwner{attributes_.mode, attributes_.uid, attributes_.gid};
    }
    const InodeAttributes a = TRY(attributes());
    return InodeOwner{a.mode, a.uid, a.gid};
}

Status GoferInode::set_attributes(const AttributeChange& change) {
    gofer::SetAttributesRequest request;
    if (change.mode) {
        request.mask |= gofer::kSetMode;
        request.mode = *change.mode & 07777;
    }
    if (change.uid) {
        request.mask |= gofer::kSetUid;
        request.uid = *change.uid;
    }
    if (change.gid) {
        request.mask |= gofer::kSetGid;
        request.gid = *change.gid;
    }
    if (change.size) {
        request.mask |= gofer::kSetSize;
        request.size = static_cast<uint64_t>(*change.size);
    }
    if (change.atime) {
        request.mask |= gofer::kSetAccessTime;
        request.access_time = to_timestamp(*change.atime);
    }
    if (change.mtime) {
        request.mask |= gofer::kSetModifyTime;
        request.modify_time = to_timestamp(*change.mtime);
    }
    if (request.mask == 0) {
        return {};
    }
    remember(TRY(with_node([&](gofer::NodeId id) {
        request.node = id;
        return gofer().client().set_attributes(request);
    })));
    return {};
}

Result<std::string> GoferInode::read_link(Task&) {
    if (gofer().exclusive() || monotonic_ns() < fresh_until_.load(std::memory_order_relaxed)) {
        MutexLock lock(attributes_mu_);
        if (!link_target_.empty()) {
            return link_target_;
        }
    }
    std::string target =
        TRY(with_node([&](gofer::NodeId id) { return gofer().client().read_link(id); }));
    MutexLock lock(attributes_mu_);
    link_target_ = target;
    return target;
}

Result<std::string> GoferInode::get_xattr(Task&, const std::string& name) {
    return with_node([&](gofer::NodeId id) { return gofer().client().get_xattr(id, name); });
}

Status GoferInode::set_xattr(Task&, const std::string& name, std::string_view value, int flags) {
    if (value.size() > gofer::kMaxXattrValue) {
        return Errno(E2BIG);
    }
    return with_node([&](gofer::NodeId id) {
        return gofer().client().set_xattr(id, name, value, static_cast<uint32_t>(flags));
    });
}

Status GoferInode::remove_xattr(Task&, const std::string& name) {
    return with_node([&](gofer::NodeId id) { return gofer().client().remove_xattr(id, name); });
}

Result<std::vector<std::string>> GoferInode::list_xattrs(Task&) {
    const std::string all =
        TRY(with_node([&](gofer::NodeId id) { return gofer().client().list_xattr(id); }));
    std::vector<std::string> names;
    for (size_t begin = 0; begin < all.size();) {
        const size_t end = std::min(all.find('\0', begin), all.size());
        names.push_back(all.substr(begin, end - begin));
        begin = end + 1;
    }
    return names;
}

// ---------------------------------------------------------------- names

void GoferInode::drop_listing_locked() {
    if (listing_ != nullptr) {
        gofer().listed_entries_ -= listing_->size();
        listing_.reset();  // stays in `listed_` until it is the oldest
    }
}

void GoferInode::forget_child_locked(std::string_view name) {
    drop_listing_locked();
    children_.erase(std::string(name));
    note_modified();
}

Result<RefPtr<Inode>> GoferInode::create(Task&, std::string_view name, const NewInode& what) {
    gofer::Node made;
    RefPtr<HostFile> donated;
    if ((what.mode & S_IFMT) == S_IFREG) {
        gofer::CreatedNode created = TRY(with_node([&](gofer::NodeId id) {
            return gofer().client().create(id, name, O_RDWR, owner_of(what));
        }));
        made = created.node;
        if (created.file.valid()) {
            donated = make_ref<HostFile>(std::move(created.file));
        }
    } else {
        gofer::NewOwner owner = owner_of(what);
        owner.mode = what.mode;
        made = TRY(with_node([&](gofer::NodeId id) {
            return gofer().client().mknod(id, name, owner, major(what.rdev), minor(what.rdev));
        }));
    }
    {
        MutexLock lock(gofer().mu_);
        forget_child_locked(name);
    }
    RefPtr<GoferInode> child = adopt_child(name, made);
    if (donated) {
        {
            MutexLock lock(gofer().mu_);
            std::swap(child->write_file_, donated);
        }
        gofer().note_recent(*child);
    }
    return RefPtr<Inode>(std::move(child));
}

Result<RefPtr<Inode>> GoferInode::make_directory(Task&, std::string_view name,
                                                 const NewInode& what) {
    const gofer::Node made = TRY(with_node(
        [&](gofer::NodeId id) { return gofer().client().mkdir(id, name, owner_of(what)); }));
    {
        MutexLock lock(gofer().mu_);
        forget_child_locked(name);
    }
    return RefPtr<Inode>(adopt_child(name, made));
}

Result<RefPtr<Inode>> GoferInode::make_symlink(Task&, std::string_view name,
                                               std::string_view target, const NewInode& what) {
    const gofer::Node made = TRY(with_node([&](gofer::NodeId id) {
        return gofer().client().symlink(id, name, target, owner_of(what));
    }));
    {
        MutexLock lock(gofer().mu_);
        forget_child_locked(name);
    }
    return RefPtr<Inode>(adopt_child(name, made));
}

Status GoferInode::link(Task&, std::string_view name, Inode& target) {
    auto& linked = static_cast<GoferInode&>(target);
    const gofer::NodeId node = TRY(linked.node());
    const gofer::Node made =
        TRY(with_node([&](gofer::NodeId id) { return gofer().client().link(node, id, name); }));
    {
        MutexLock lock(gofer().mu_);
        forget_child_locked(name);
    }
    (void)adopt_child(name, made);
    linked.note_modified();
    return {};
}

Status GoferInode::unlink(Task&, std::string_view name, Inode& victim) {
    TRY(with_node([&](gofer::NodeId id) { return gofer().client().unlink(id, name); }));
    auto& gone = static_cast<GoferInode&>(victim);
    std::vector<RefPtr<HostFile>> dropped;
    MutexLock lock(gofer().mu_);
    forget_child_locked(name);
    gone.unlinked_ = true;
    gone.note_modified();
    // Nobody has it open: do not keep the host's blocks, neither by our descriptors nor by the
    // gofer's node.
    for (RefPtr<HostFile>* file : {&gone.read_file_, &gone.write_file_}) {
        if (*file && (*file)->ref_count() == 1) {
            dropped.push_back(std::exchange(*file, nullptr));
        }
    }
    std::vector<RefPtr<GoferInode>> listed;
    std::vector<gofer::CloseItem> items;
    if (!gone.read_file_ && !gone.write_file_) {
        std::erase_if(gofer().recent_, [&](RefPtr<GoferInode>& inode) {
            const bool is_gone = inode.get() == &gone;
            if (is_gone) {
                listed.push_back(inode);
            }
            return is_gone;
        });
        // What is left is the reference of the name that is about to go.
        if (gone.holds_ != 0 && gone.ref_count() == 1 + listed.size()) {
            // With all that wait to be given back: walks that met the node have left holds there.
            items.swap(gofer().to_close_);
            items.push_back({gone.node_.load(std::memory_order_relaxed), gone.holds_});
            gone.holds_ = 0;
            gone.node_.store(0, std::memory_order_release);
        }
    }
    lock.unlock();
    if (!items.empty()) {
        gone.count_one_link_less();
        gofer().client_->close(items.data(), items.size());
    }
    return {};
}

/// For those who still ask, by a descriptor that only names it: there is no node to look at again.
void GoferInode::count_one_link_less() {
    MutexLock lock(attributes_mu_);
    attributes_.nlink = attributes_.nlink > 0 ? attributes_.nlink - 1 : 0;
}

Status GoferInode::remove_directory(Task&, std::string_view name, Inode& victim) {
    TRY(with_node([&](gofer::NodeId id) { return gofer().client().rmdir(id, name); }));
    MutexLock lock(gofer().mu_);
    forget_child_locked(name);
    static_cast<GoferInode&>(victim).unlinked_ = true;
    return {};
}

Status GoferInode::rename(Task&, std::string_view old_name, Inode& new_directory,
                          std::string_view new_name, uint32_t flags) {
    constexpr uint32_t kExchange = 2;  // RENAME_EXCHANGE
    auto& to = static_cast<GoferInode&>(new_directory);
    const gofer::NodeId to_node = TRY(to.node());
    TRY(with_node([&](gofer::NodeId id) {
        return gofer().client().rename(id, old_name, to_node, new_name, flags);
    }));
    std::vector<RefPtr<RefCounted>> dropped;
    MutexLock lock(gofer().mu_);
    const auto take = [&](GoferInode& directory, std::string_view name) {
        RefPtr<GoferInode> taken;
        const auto it = directory.children_.find(std::string(name));
        if (it != directory.children_.end() && it->second->try_ref()) {
            taken = adopt_ref(it->second);
        }
        directory.forget_child_locked(name);
        return taken;
    };
    const auto put = [&](GoferInode& directory, std::string_view name,
                         const RefPtr<GoferInode>& inode) {
        if (inode) {
            if (inode->parent_.get() != &directory) {
                dropped.push_back(std::exchange(inode->parent_, RefPtr<GoferInode>(&directory)));
            }
            inode->name_ = std::string(name);
            directory.children_.insert_or_assign(std::string(name), inode.get());
            inode->note_modified();
        }
    };
    RefPtr<GoferInode> moved = take(*this, old_name);
    RefPtr<GoferInode> other = take(to, new_name);
    put(to, new_name, moved);
    if ((flags & kExchange) != 0) {
        put(*this, old_name, other);
    } else if (other) {
        other->unlinked_ = true;
        other->note_modified();
    }
    dropped.push_back(std::move(moved));
    dropped.push_back(std::move(other));
    lock.unlock();
    return {};
}

}  // namespace moat::kernel
