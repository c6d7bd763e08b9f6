#include "kernel/fs/dentry.h"

#include <functional>
#include <vector>

#include "kernel/base/check.h"
#include "kernel/base/mutex.h"

namespace moat::kernel {

namespace {

struct Cache {
    Mutex<LockRank::kDentryTree> mu;
    std::vector<Dentry*> buckets = std::vector<Dentry*>(256);
    size_t count = 0;
    uint64_t changes = 0;  // of any directory's version
    // Some 400 bytes a name and its inode: 26 MB when full. Large enough for `find` over a big tree
    // to be served from memory the second time.
    size_t limit = 65536;
    Dentry* newest = nullptr;
    Dentry* oldest = nullptr;
};

Cache& cache() {
    static Cache* const instance = new Cache();  // never destroyed: dentries die after statics
    return *instance;
}

size_t hash_of(const Dentry* directory, std::string_view name) {
    return std::hash<std::string_view>()(name) ^
           (reinterpret_cast<uintptr_t>(directory) >> 4) * 0x9e3779b97f4a7c15ull;
}

}  // namespace

Dentry::Dentry(RefPtr<FileSystem> owned_fs, FileSystem& fs, RefPtr<Dentry> parent, std::string name,
               RefPtr<Inode> inode)
    : owned_fs_(std::move(owned_fs)),
      fs_(&fs),
      parent_(std::move(parent)),
      name_(std::move(name)),
      inode_(std::move(inode)),
      is_root_(!parent_) {}

Dentry::~Dentry() {
    CHECK(!hashed_);
    if (is_root_ && owned_fs_) {
        MutexLock lock(cache().mu);
        if (fs_->root_dentry_ == this) {
            fs_->root_dentry_ = nullptr;
        }
    }
}

// The last reference to a leaf may be the last to each of its parents: a guest can make such a
// chain as long as it likes, so it is taken down in a loop.
void Dentry::last_unref() {
    static thread_local std::vector<Dentry*>* queue = nullptr;
    if (queue != nullptr) {
        queue->push_back(this);
        return;
    }
    std::vector<Dentry*> pending{this};
    queue = &pending;
    while (!pending.empty()) {
        Dentry* dentry = pending.back();
        pending.pop_back();
        delete dentry;
    }
    queue = nullptr;
}

std::string Dentry::name() const {
    MutexLock lock(cache().mu);
    return name_;
}

RefPtr<Dentry> Dentry::parent() const {
    MutexLock lock(cache().mu);
    return parent_;
}

std::string Dentry::path_in_file_system() const {
    std::vector<const std::string*> names;
    MutexLock lock(cache().mu);
    for (const Dentry* d = this; d->parent_; d = d->parent_.get()) {
        names.push_back(&d->name_);
    }
    std::string path;
    for (size_t i = names.size(); i > 0; i--) {
        path += '/';
        path += *names[i - 1];
    }
    return path.empty() ? "/" : path;
}

bool Dentry::is_ancestor_of(const Dentry& other) const {
    MutexLock lock(cache().mu);
    for (const Dentry* d = &other; d != nullptr; d = d->parent_.get()) {
        if (d == this) {
            return true;
        }
    }
    return false;
}

RefPtr<Dentry> Dentry::make_detached(FileSystem& fs, RefPtr<Inode> inode, std::string name) {
    auto dentry = adopt_ref(
        new Dentry(RefPtr<FileSystem>(&fs), fs, nullptr, std::move(name), std::move(inode)));
    dentry->is_root_ = false;
    dentry->deleted_.store(true, std::memory_order_relaxed);
    return dentry;
}

RefPtr<Dentry> FileSystem::root_dentry() {
    {
        MutexLock lock(cache().mu);
        if (root_dentry_ != nullptr && root_dentry_->try_ref()) {
            return adopt_ref(root_dentry_);
        }
    }
    RefPtr<Dentry> made =
        adopt_ref(new Dentry(RefPtr<FileSystem>(this), *this, nullptr, "", root()));
    MutexLock lock(cache().mu);
    if (root_dentry_ != nullptr && root_dentry_->try_ref()) {
        RefPtr<Dentry> other = adopt_ref(root_dentry_);
        lock.unlock();  // before `made` dies
        return other;
    }
    root_dentry_ = made.get();
    return made;
}

// The functions below hold the cache's lock; references given up are collected in a vector declared
// before the lock, and so are dropped after it.

namespace {
/// How many of the oldest are looked at for one to give up, each time a name is added to a full
/// cache.
constexpr size_t kEvictionScan = 64;
}  // namespace

Dentry* DentryCache::find_locked(Dentry& directory, std::string_view name, size_t hash) {
    Cache& c = cache();
    for (Dentry* d = c.buckets[hash & (c.buckets.size() - 1)]; d != nullptr;
         d = d->next_in_bucket_) {
        if (d->hash_ == hash && d->parent_.get() == &directory && d->name_ == name) {
            return d;
        }
    }
    return nullptr;
}

void DentryCache::link_newest_locked(Dentry& d) {
    Cache& c = cache();
    d.newer_ = nullptr;
    d.older_ = c.newest;
    (c.newest != nullptr ? c.newest->newer_ : c.oldest) = &d;
    c.newest = &d;
}

void DentryCache::unlink_age_locked(Dentry& d) {
    Cache& c = cache();
    (d.newer_ != nullptr ? d.newer_->older_ : c.newest) = d.older_;
    (d.older_ != nullptr ? d.older_->newer_ : c.oldest) = d.newer_;
    d.newer_ = d.older_ = nullptr;
}

void DentryCache::touch_locked(Dentry& d) {
    if (cache().newest != &d) {
        unlink_age_locked(d);
        link_newest_locked(d);
    }
}

void DentryCache::hash_locked(Dentry& d) {
    Cache& c = cache();
    if (c.count >= c.buckets.size()) {
        std::vector<Dentry*> larger(c.buckets.size() * 2);
        for (Dentry* chain : c.buckets) {
            while (chain != nullptr) {
                Dentry* next = chain->next_in_bucket_;
                Dentry*& bucket = larger[chain->hash_ & (larger.size() - 1)];
                chain->next_in_bucket_ = bucket;
                bucket = chain;
                chain = next;
            }
        }
        c.buckets.swap(larger);
    }
    d.hash_ = hash_of(d.parent_.get(), d.name_);
    Dentry*& bucket = c.buckets[d.hash_ & (c.buckets.size() - 1)];
    d.next_in_bucket_ = bucket;
    bucket = &d;
    d.hashed_ = true;
    d.ref();  // the cache's own
    c.count++;
    link_newest_locked(d);
}

RefPtr<Dentry> DentryCache::unhash_locked(Dentry& d) {
    if (!d.hashed_) {
        return nullptr;
    }
    Cache& c = cache();
    Dentry** link = &c.buckets[d.hash_ & (c.buckets.size() - 1)];
    while (*link != &d) {
        link = &(*link)->next_in_bucket_;
    }
    *link = d.next_in_bucket_;
    d.next_in_bucket_ = nullptr;
    d.hashed_ = false;
    c.count--;
    unlink_age_locked(d);
    return adopt_ref(&d);
}

void DentryCache::evict_locked(std::vector<RefPtr<Dentry>>& dropped) {
    Cache& c = cache();
    for (size_t i = 0; i < kEvictionScan && c.count > c.limit; i++) {
        Dentry& d = *c.oldest;
        // Nobody can take a reference but through the cache, whose lock we hold.
        if (d.ref_count() == 1 && !d.is_mountpoint()) {
            dropped.push_back(unhash_locked(d));
        } else {
            touch_locked(d);
        }
    }
}

RefPtr<Dentry> DentryCache::find(Dentry& directory, std::string_view name) {
    const size_t hash = hash_of(&directory, name);
    MutexLock lock(cache().mu);
    Dentry* d = find_locked(directory, name, hash);
    if (d != nullptr) {
        touch_locked(*d);
    }
    return RefPtr<Dentry>(d);
}

uint64_t DentryCache::version(Dentry& directory) {
    MutexLock lock(cache().mu);
    return directory.version_;
}

RefPtr<Dentry> DentryCache::add_locked(Dentry& directory, std::string_view name,
                                       RefPtr<Inode> inode, std::vector<RefPtr<Dentry>>& dropped) {
    if (Dentry* old = find_locked(directory, name, hash_of(&directory, name))) {
        if (old->inode_ == inode) {
            touch_locked(*old);
            return RefPtr<Dentry>(old);
        }
        dropped.push_back(unhash_locked(*old));
    }
    auto dentry = adopt_ref(new Dentry(nullptr, *directory.fs_, RefPtr<Dentry>(&directory),
                                       std::string(name), std::move(inode)));
    hash_locked(*dentry);
    evict_locked(dropped);
    return dentry;
}

RefPtr<Dentry> DentryCache::insert(Dentry& directory, std::string_view name, RefPtr<Inode> inode,
                                   uint64_t version) {
    std::vector<RefPtr<Dentry>> dropped;
    MutexLock lock(cache().mu);
    if (directory.version_ != version) {
        lock.unlock();
        return nullptr;
    }
    RefPtr<Dentry> dentry = add_locked(directory, name, std::move(inode), dropped);
    lock.unlock();
    return dentry;
}

uint64_t DentryCache::changes() {
    MutexLock lock(cache().mu);
    return cache().changes;
}

RefPtr<Dentry> DentryCache::insert_ahead(Dentry& directory, std::string_view name,
                                         RefPtr<Inode> inode, uint64_t changes) {
    std::vector<RefPtr<Dentry>> dropped;
    MutexLock lock(cache().mu);
    if (cache().changes != changes || directory.deleted_.load(std::memory_order_relaxed) ||
        find_locked(directory, name, hash_of(&directory, name)) != nullptr) {
        lock.unlock();
        return nullptr;
    }
    RefPtr<Dentry> dentry = add_locked(directory, name, std::move(inode), dropped);
    lock.unlock();
    return dentry;
}

RefPtr<Dentry> DentryCache::insert_new(Dentry& directory, std::string_view name,
                                       RefPtr<Inode> inode) {
    std::vector<RefPtr<Dentry>> dropped;
    MutexLock lock(cache().mu);
    directory.version_++;
    cache().changes++;
    RefPtr<Dentry> dentry = add_locked(directory, name, std::move(inode), dropped);
    lock.unlock();
    return dentry;
}

void DentryCache::remove(Dentry& dentry) {
    RefPtr<Dentry> dropped;
    MutexLock lock(cache().mu);
    if (dentry.parent_) {
        dentry.parent_->version_++;
    }
    dentry.version_++;
    cache().changes++;
    dentry.deleted_.store(true, std::memory_order_relaxed);
    dropped = unhash_locked(dentry);
    lock.unlock();
}

void DentryCache::forget(Dentry& dentry) {
    RefPtr<Dentry> dropped;
    MutexLock lock(cache().mu);
    dropped = unhash_locked(dentry);
    lock.unlock();
}

void DentryCache::forget_name(Dentry& directory, std::string_view name) {
    RefPtr<Dentry> dropped;
    MutexLock lock(cache().mu);
    directory.version_++;
    cache().changes++;
    if (Dentry* d = find_locked(directory, name, hash_of(&directory, name))) {
        dropped = unhash_locked(*d);
    }
    lock.unlock();
}

void DentryCache::move(Dentry& dentry, Dentry& directory, std::string_view name) {
    std::vector<RefPtr<Dentry>> dropped;
    RefPtr<Dentry> old_parent;
    MutexLock lock(cache().mu);
    if (Dentry* target = find_locked(directory, name, hash_of(&directory, name));
        target != nullptr && target != &dentry) {
        target->deleted_.store(true, std::memory_order_relaxed);
        target->version_++;
        dropped.push_back(unhash_locked(*target));
    }
    dentry.parent_->version_++;
    directory.version_++;
    cache().changes++;
    dropped.push_back(unhash_locked(dentry));
    old_parent = std::exchange(dentry.parent_, RefPtr<Dentry>(&directory));
    dentry.name_ = std::string(name);
    hash_locked(dentry);
    lock.unlock();
}

void DentryCache::exchange(Dentry& a, Dentry& b) {
    std::vector<RefPtr<Dentry>> dropped;
    MutexLock lock(cache().mu);
    a.parent_->version_++;
    b.parent_->version_++;
    cache().changes++;
    dropped.push_back(unhash_locked(a));
    dropped.push_back(unhash_locked(b));
    std::swap(a.parent_, b.parent_);
    std::swap(a.name_, b.name_);
    hash_locked(a);
    hash_locked(b);
    lock.unlock();
}

void DentryCache::forget_file_system(FileSystem& fs) {
    // Leaves first: each pass frees the parents for the next.
    for (;;) {
        std::vector<RefPtr<Dentry>> dropped;
        MutexLock lock(cache().mu);
        Cache& c = cache();
        for (Dentry* d = c.oldest; d != nullptr;) {
            Dentry* next = d->newer_;
            if (d->fs_ == &fs && d->ref_count() == 1 && !d->is_mountpoint()) {
                dropped.push_back(unhash_locked(*d));
            }
            d = next;
        }
        lock.unlock();
        if (dropped.empty()) {
            return;
        }
    }
}

size_t DentryCache::size() {
    MutexLock lock(cache().mu);
    return cache().count;
}

void DentryCache::set_limit(size_t limit) {
    MutexLock lock(cache().mu);
    cache().limit = limit;
}

}  // namespace moat::kernel
