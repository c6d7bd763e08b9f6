#include "kernel/fs/mount.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <unordered_map>

#include "kernel/base/check.h"

namespace moat::kernel {

namespace {

constexpr size_t kMaxMounts = 100000;  // fs.mount-max

struct Place {
    const Mount* mount;
    const Dentry* dentry;
    bool operator==(const Place&) const = default;
};

struct PlaceHash {
    size_t operator()(const Place& p) const {
        return reinterpret_cast<uintptr_t>(p.mount) * 0x9e3779b97f4a7c15ull ^
               reinterpret_cast<uintptr_t>(p.dentry) >> 4;
    }
};

// What is mounted where, of all namespaces, as a place says whose it is by its mount. The mounts
// are owned by their namespaces.
struct MountTable {
    Mutex<LockRank::kMountTable> mu;
    std::unordered_map<Place, Mount*, PlaceHash> by_place;
};

MountTable& table() {
    static MountTable* const instance = new MountTable();
    return *instance;
}

int32_t next_mount_id() {
    static std::atomic<int32_t> next{20};
    return next.fetch_add(1, std::memory_order_relaxed);
}

// proc(5): space, tab, newline and backslash are written in octal.
std::string escape(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == ' ' || c == '\t' || c == '\n' || c == '\\') {
            char octal[5];
            snprintf(octal, sizeof octal, "\\%03o", static_cast<unsigned char>(c));
            out += octal;
        } else {
            out += c;
        }
    }
    return out;
}

}  // namespace

Mount::Mount(RefPtr<FileSystem> fs, RefPtr<Dentry> root, uint64_t flags, std::string source)
    : id_(next_mount_id()),
      fs_(std::move(fs)),
      root_(std::move(root)),
      source_(std::move(source)),
      flags_(flags & kMountFlagMask) {}

Mount::~Mount() = default;

Path Mount::mountpoint() const {
    MutexLock lock(table().mu);
    return parent_ ? Path(parent_, mountpoint_) : Path();
}

Path follow_mounts(Path path) {
    while (path.dentry()->is_mountpoint()) {
        MutexLock lock(table().mu);
        const auto it = table().by_place.find({path.mount(), path.dentry()});
        if (it == table().by_place.end()) {
            break;
        }
        RefPtr<Mount> top(it->second);
        lock.unlock();
        RefPtr<Dentry> root = top->root();
        path = Path(std::move(top), std::move(root));
    }
    return path;
}

RefPtr<MountNamespace> MountNamespace::create(RefPtr<FileSystem> root, uint64_t flags,
                                              std::string source) {
    auto ns = adopt_ref(new MountNamespace());
    RefPtr<Dentry> dentry = root->root_dentry();
    ns->root_ = make_ref<Mount>(std::move(root), std::move(dentry), flags, std::move(source));
    ns->root_->namespace_ = ns.get();
    ns->mounts_.push_back(ns->root_);
    return ns;
}

MountNamespace::~MountNamespace() {
    std::vector<RefPtr<RefCounted>> dropped;
    std::vector<RefPtr<FileSystem>> file_systems;
    MutexLock lock(table().mu);
    for (RefPtr<Mount>& m : mounts_) {
        if (m->parent_) {
            table().by_place.erase({m->parent_.get(), m->mountpoint_.get()});
            m->mountpoint_->remove_mount();
            dropped.push_back(std::move(m->parent_));
            dropped.push_back(std::move(m->mountpoint_));
        }
        m->namespace_ = nullptr;
        file_systems.push_back(m->fs_);
        dropped.push_back(std::move(m));
    }
    lock.unlock();
    mounts_.clear();
    root_.reset();
    dropped.clear();
    for (const RefPtr<FileSystem>& fs : file_systems) {
        DentryCache::forget_file_system(*fs);
    }
}

Path MountNamespace::root() const {
    MutexLock lock(table().mu);
    return Path(root_, root_->root_);
}

Result<RefPtr<Mount>> MountNamespace::attach(RefPtr<Mount> mount, const Path& given) {
    const Path at = follow_mounts(given);
    const bool directory = at.dentry()->inode()->is_directory();
    if (directory != mount->root_->inode()->is_directory()) {
        return Errno(ENOTDIR);
    }
    if (at.dentry()->is_deleted()) {
        return Errno(ENOENT);
    }
    MutexLock lock(table().mu);
    if (at.mount()->namespace_ != this) {
        return Errno(EINVAL);
    }
    if (mounts_.size() >= kMaxMounts) {
        return Errno(ENOSPC);
    }
    if (!table().by_place.emplace(Place{at.mount(), at.dentry()}, mount.get()).second) {
        return Errno(EBUSY);  // somebody else mounted here meanwhile
    }
    at.dentry()->add_mount();
    mount->parent_ = at.mount_ref();
    mount->mountpoint_ = at.dentry_ref();
    mount->namespace_ = this;
    mounts_.push_back(mount);
    changed_.notify(EPOLLERR | EPOLLPRI);
    return mount;
}

Result<RefPtr<Mount>> MountNamespace::mount(const Path& at, RefPtr<FileSystem> fs, uint64_t flags,
                                            std::string source, RefPtr<Dentry> root) {
    if (!root) {
        root = fs->root_dentry();
    }
    return attach(make_ref<Mount>(std::move(fs), std::move(root), flags, std::move(source)), at);
}

bool MountNamespace::is_below_locked(const Mount& mount, const Mount& top) const {
    for (const Mount* m = &mount; m != nullptr; m = m->parent_.get()) {
        if (m == &top) {
            return true;
        }
    }
    return false;
}

Result<RefPtr<Mount>> MountNamespace::bind(const Path& from, const Path& at, Recursive recursive) {
    std::vector<RefPtr<Mount>> below;  // with their parents before them
    {
        MutexLock lock(table().mu);
        if (from.mount()->namespace_ == nullptr) {
            return Errno(EINVAL);
        }
        if (recursive == Recursive::kYes) {
            for (const RefPtr<Mount>& m : from.mount()->namespace_->mounts_) {
                if (m.get() != from.mount() && is_below_locked(*m, *from.mount())) {
                    below.push_back(m);
                }
            }
        }
    }
    const Mount& source = *from.mount();
    RefPtr<Mount> top = TRY(mount(at, RefPtr<FileSystem>(&source.file_system()), source.flags(),
                                  source.source(), from.dentry_ref()));
    std::vector<std::pair<const Mount*, RefPtr<Mount>>> copies{{from.mount(), top}};
    for (const RefPtr<Mount>& m : below) {
        const Path old = m->mountpoint();
        const auto parent = std::find_if(copies.begin(), copies.end(), [&](const auto& copy) {
            return copy.first == old.mount();
        });
        // Left out: what is mounted beside `from`'s dentry, or below something left out.
        if (parent == copies.end() || old.is_null() ||
            (old.mount() == from.mount() && !from.dentry()->is_ancestor_of(*old.dentry()))) {
            continue;
        }
        auto copy =
            mount(Path(parent->second, old.dentry_ref()), m->fs_, m->flags(), m->source_, m->root_);
        if (copy.ok()) {
            copies.emplace_back(m.get(), *copy);
        }
    }
    return top;
}

Status MountNamespace::move(const Path& from, const Path& given) {
    const Path at = follow_mounts(given);
    if (from.dentry() != from.mount()->root().get()) {
        return Errno(EINVAL);
    }
    if (from.dentry()->inode()->is_directory() != at.dentry()->inode()->is_directory()) {
        return Errno(ENOTDIR);
    }
    std::vector<RefPtr<RefCounted>> dropped;
    MutexLock lock(table().mu);
    Mount& m = *from.mount();
    if (m.namespace_ != this || at.mount()->namespace_ != this || !m.parent_) {
        return Errno(EINVAL);
    }
    if (is_below_locked(*at.mount(), m)) {
        return Errno(ELOOP);
    }
    if (!table().by_place.emplace(Place{at.mount(), at.dentry()}, &m).second) {
        return Errno(EBUSY);
    }
    at.dentry()->add_mount();
    table().by_place.erase({m.parent_.get(), m.mountpoint_.get()});
    m.mountpoint_->remove_mount();
    dropped.push_back(std::exchange(m.parent_, at.mount_ref()));
    dropped.push_back(std::exchange(m.mountpoint_, at.dentry_ref()));
    changed_.notify(EPOLLERR | EPOLLPRI);
    lock.unlock();
    return {};
}

Status MountNamespace::unmount(const Path& at, int flags) {
    if (at.dentry() != at.mount()->root().get()) {
        return Errno(EINVAL);
    }
    std::vector<RefPtr<RefCounted>> dropped;
    std::vector<RefPtr<FileSystem>> file_systems;
    {
        // What the cache alone holds does not keep a file system busy; mounts are held by paths
        // only.
        MutexLock lock(table().mu);
        Mount& top = *at.mount();
        if (top.namespace_ != this || !top.parent_) {
            return Errno(EINVAL);
        }
        std::vector<RefPtr<Mount>> going;
        for (const RefPtr<Mount>& m : mounts_) {
            if (is_below_locked(*m, top)) {
                going.push_back(m);
            }
        }
        // Held by the list, by `going` and by the caller's path.
        if ((flags & MNT_DETACH) == 0 && (going.size() > 1 || top.ref_count() > 3)) {
            return Errno(EBUSY);
        }
        for (RefPtr<Mount>& m : going) {
            table().by_place.erase({m->parent_.get(), m->mountpoint_.get()});
            m->mountpoint_->remove_mount();
            dropped.push_back(std::move(m->parent_));
            dropped.push_back(std::move(m->mountpoint_));
            m->namespace_ = nullptr;
            file_systems.push_back(m->fs_);
            std::erase_if(mounts_, [&](const RefPtr<Mount>& x) { return x == m; });
            dropped.push_back(std::move(m));
        }
        changed_.notify(EPOLLERR | EPOLLPRI);
    }
    dropped.clear();
    for (const RefPtr<FileSystem>& fs : file_systems) {
        DentryCache::forget_file_system(*fs);
    }
    return {};
}

Status MountNamespace::pivot_root(const Path& new_root, const Path& put_old) {
    if (new_root.dentry() != new_root.mount()->root().get()) {
        return Errno(EINVAL);
    }
    std::vector<RefPtr<RefCounted>> dropped;
    MutexLock lock(table().mu);
    Mount& next = *new_root.mount();
    if (next.namespace_ != this || put_old.mount()->namespace_ != this) {
        return Errno(EINVAL);
    }
    if (&next == root_.get() || put_old.mount() == root_.get()) {
        return Errno(EBUSY);
    }
    if (!is_below_locked(*put_old.mount(), next)) {
        return Errno(EINVAL);
    }
    table().by_place.erase({next.parent_.get(), next.mountpoint_.get()});
    next.mountpoint_->remove_mount();
    dropped.push_back(std::move(next.parent_));
    dropped.push_back(std::move(next.mountpoint_));
    Mount& old = *root_;
    // pivot_root(".", "."): the old root goes on top of the new one.
    if (!table().by_place.emplace(Place{put_old.mount(), put_old.dentry()}, &old).second) {
        CHECK(!"pivot_root over a mount");  // the caller follows mounts first
    }
    put_old.dentry()->add_mount();
    old.parent_ = put_old.mount_ref();
    old.mountpoint_ = put_old.dentry_ref();
    root_ = RefPtr<Mount>(&next);
    changed_.notify(EPOLLERR | EPOLLPRI);
    lock.unlock();
    return {};
}

RefPtr<MountNamespace> MountNamespace::clone(
    std::vector<std::pair<RefPtr<Mount>, RefPtr<Mount>>>* moved) const {
    auto ns = adopt_ref(new MountNamespace());
    std::vector<std::pair<RefPtr<Mount>, RefPtr<Mount>>> pairs;
    MutexLock lock(table().mu);
    for (const RefPtr<Mount>& m : mounts_) {
        auto copy = make_ref<Mount>(m->fs_, m->root_, m->flags(), m->source_);
        copy->namespace_ = ns.get();
        pairs.emplace_back(m, copy);
        ns->mounts_.push_back(copy);
    }
    const auto copy_of = [&](const Mount* old) {
        for (const auto& [from, to] : pairs) {
            if (from.get() == old) {
                return to;
            }
        }
        return RefPtr<Mount>();
    };
    for (const auto& [from, to] : pairs) {
        if (from->parent_) {
            to->parent_ = copy_of(from->parent_.get());
            to->mountpoint_ = from->mountpoint_;
            to->mountpoint_->add_mount();
            table().by_place.emplace(Place{to->parent_.get(), to->mountpoint_.get()}, to.get());
        }
    }
    ns->root_ = copy_of(root_.get());
    lock.unlock();
    if (moved != nullptr) {
        *moved = std::move(pairs);
    }
    return ns;
}

std::vector<RefPtr<Mount>> MountNamespace::mounts() const {
    MutexLock lock(table().mu);
    return mounts_;
}

std::string mount_flags_text(uint64_t flags) {
    std::string text = (flags & MS_RDONLY) != 0 ? "ro" : "rw";
    const auto add = [&](uint64_t flag, const char* name) {
        if ((flags & flag) != 0) {
            text += ',';
            text += name;
        }
    };
    add(MS_NOSUID, "nosuid");
    add(MS_NODEV, "nodev");
    add(MS_NOEXEC, "noexec");
    add(MS_NOATIME, "noatime");
    add(MS_NODIRATIME, "nodiratime");
    if ((flags & (MS_NOATIME | MS_STRICTATIME)) == 0) {
        text += ",relatime";
    }
    return text;
}

namespace {

struct Text {
    std::string text;
    bool reachable = true;
};

Text build_path(Path at, const Path& root) {
    Text result;
    while (!(at == root)) {
        if (at.dentry() == at.mount()->root().get()) {
            Path below = at.mount()->mountpoint();
            if (below.is_null()) {
                result.reachable = root.is_null();
                break;
            }
            at = std::move(below);
            continue;
        }
        result.text.insert(0, "/" + at.dentry()->name());
        RefPtr<Dentry> parent = at.dentry()->parent();
        if (!parent) {
            break;  // never had a name: memfd_create(2)
        }
        at = Path(at.mount_ref(), std::move(parent));
    }
    if (result.text.empty()) {
        result.text = "/";
    }
    return result;
}

}  // namespace

std::string path_text(const Path& path, const Path& root) {
    Text built = build_path(path, root);
    if (!built.reachable) {
        built.text.insert(0, "(unreachable)");
    }
    if (path.dentry()->is_deleted()) {
        built.text += " (deleted)";
    }
    return built.text;
}

std::string MountNamespace::mounts_text(const Path& root) const {
    std::string text;
    for (const RefPtr<Mount>& m : mounts()) {
        const Text at = build_path(Path(m, m->root()), root);
        if (!at.reachable) {
            continue;
        }
        text += escape(m->source()) + " " + escape(at.text) + " " + m->file_system().type_name() +
                " " + mount_flags_text(m->flags()) + m->file_system().mount_options() + " 0 0\n";
    }
    return text;
}

std::string MountNamespace::mountinfo_text(const Path& root) const {
    std::string text;
    for (const RefPtr<Mount>& m : mounts()) {
        const Text at = build_path(Path(m, m->root()), root);
        if (!at.reachable) {
            continue;
        }
        const Path below = m->mountpoint();
        const uint64_t device = m->file_system().device();
        char ids[64];
        snprintf(ids, sizeof ids, "%d %d %u:%u ", m->id(),
                 below.is_null() ? m->id() : below.mount()->id(), major(device), minor(device));
        text += ids;
        text += escape(m->root()->path_in_file_system()) + " " + escape(at.text) + " " +
                mount_flags_text(m->flags()) + " - " + m->file_system().type_name() + " " +
                escape(m->source()) + " " + (m->read_only() ? "ro" : "rw") +
                m->file_system().mount_options() + "\n";
    }
    return text;
}

}  // namespace moat::kernel
