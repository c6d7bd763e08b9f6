#include <algorithm>

#include "kernel/fs/synthetic/synthetic.h"

namespace moat::kernel {

namespace {

class SyntheticDirectoryFile final : public DirectoryFile {
  public:
    SyntheticDirectoryFile(uint32_t flags, RefPtr<SyntheticDirectory> directory)
        : DirectoryFile(flags), directory_(std::move(directory)) {}

  protected:
    Result<std::vector<DirectoryEntry>> list(Task& task) override { return directory_->list(task); }

  private:
    const RefPtr<SyntheticDirectory> directory_;
};

}  // namespace

SyntheticDirectory::SyntheticDirectory(SyntheticFileSystem& fs, uint32_t permissions, uint64_t ino)
    : SyntheticInode(fs, S_IFDIR | permissions, ino) {}

Result<RefPtr<File>> SyntheticDirectory::open(Task&, const Path& path, uint32_t flags) {
    auto file = make_ref<SyntheticDirectoryFile>(flags, RefPtr<SyntheticDirectory>(this));
    file->set_path(path);
    return RefPtr<File>(std::move(file));
}

StaticDirectory::StaticDirectory(SyntheticFileSystem& fs, uint32_t permissions)
    : SyntheticDirectory(fs, permissions) {}

void StaticDirectory::add(std::string name, RefPtr<Inode> inode) {
    const uint64_t ino = static_cast<SyntheticInode*>(inode.get())->ino();
    MutexLock lock(mu_);
    children_.push_back({std::move(name), std::move(inode), ino});
}

void StaticDirectory::remove(std::string_view name) {
    RefPtr<Inode> removed;  // its last reference may go; not under the lock
    MutexLock lock(mu_);
    auto it = std::find_if(children_.begin(), children_.end(),
                           [&](const Child& c) { return c.name == name; });
    if (it != children_.end()) {
        removed = std::move(it->inode);
        children_.erase(it);
    }
    lock.unlock();
}

RefPtr<StaticDirectory> StaticDirectory::directory(std::string_view name) {
    {
        MutexLock lock(mu_);
        for (const Child& child : children_) {
            if (child.name == name) {
                auto* found = dynamic_cast<StaticDirectory*>(child.inode.get());
                CHECK(found != nullptr);
                return RefPtr<StaticDirectory>(found);
            }
        }
    }
    auto made = make_ref<StaticDirectory>(synthetic_fs());
    add(std::string(name), made);
    return made;
}

void StaticDirectory::text(std::string name, TextSource source, uint32_t permissions) {
    add(std::move(name), make_ref<TextInode>(synthetic_fs(), permissions, std::move(source)));
}

void StaticDirectory::text(std::string name, std::string content, uint32_t permissions) {
    text(std::move(name), TextSource([content = std::move(content)](Task&) -> Result<std::string> {
             return content;
         }),
         permissions);
}

void StaticDirectory::control(std::string name, TextSource source, TextTarget target,
                              uint32_t permissions) {
    add(std::move(name),
        make_ref<TextInode>(synthetic_fs(), permissions, std::move(source), std::move(target)));
}

void StaticDirectory::link(std::string name, std::string target) {
    add(std::move(name), make_ref<LinkInode>(synthetic_fs(), std::move(target)));
}

Result<RefPtr<Inode>> StaticDirectory::lookup(Task&, std::string_view name) {
    MutexLock lock(mu_);
    for (const Child& child : children_) {
        if (child.name == name) {
            return child.inode;
        }
    }
    return Errno(ENOENT);
}

Result<std::vector<DirectoryEntry>> StaticDirectory::list(Task&) {
    std::vector<DirectoryEntry> entries;
    MutexLock lock(mu_);
    entries.reserve(children_.size());
    for (const Child& child : children_) {
        entries.push_back({child.name, child.ino, directory_type(child.inode->type())});
    }
    return entries;
}

uint32_t StaticDirectory::link_count() {
    MutexLock lock(mu_);
    uint32_t n = 2;
    for (const Child& child : children_) {
        n += child.inode->is_directory() ? 1 : 0;
    }
    return n;
}

DynamicDirectory::DynamicDirectory(SyntheticFileSystem& fs, uint32_t permissions, Lookup lookup,
                                   List list, uint64_t ino)
    : SyntheticDirectory(fs, permissions, ino),
      lookup_(std::move(lookup)),
      list_(std::move(list)) {}

}  // namespace moat::kernel
