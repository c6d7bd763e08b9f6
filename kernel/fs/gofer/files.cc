#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/gofer/gofer.h"
#include "kernel/fs/registry.h"
#include "kernel/task/task.h"

namespace moat::kernel {

class GoferDirectoryFile final : public DirectoryFile {
  public:
    GoferDirectoryFile(RefPtr<GoferInode> inode, uint32_t flags)
        : DirectoryFile(flags), inode_(std::move(inode)) {}
    Status sync(Task&, bool data_only) override { return inode_->sync_node(data_only); }

  private:
    Result<std::vector<DirectoryEntry>> list(Task&) override { return inode_->list(); }
    const RefPtr<GoferInode> inode_;
};

namespace {

/// A regular file, on a donated descriptor: nothing here asks the gofer but sync().
class GoferFile final : public RegularFile {
  public:
    GoferFile(RefPtr<GoferInode> inode, RefPtr<HostFile> host, uint32_t flags)
        : RegularFile(flags), inode_(std::move(inode)), host_(std::move(host)) {}

    Result<size_t> pread(Task&, IoBuffer& destination, int64_t offset) override {
        return destination.put_from_host(host_->fd(), destination.remaining(), offset);
    }
    Result<size_t> pwrite(Task& task, IoBuffer& source, int64_t offset) override {
        TRY(limit_file_size(task, source, offset));
        // With O_APPEND the host's descriptor has it too, and the offset counts for nothing.
        const auto n = source.take_to_host(host_->fd(), source.remaining(), offset);
        inode_->note_modified();
        return n;
    }
    Status truncate(Task&, int64_t size) override {
        inode_->note_modified();
        return host_status(ftruncate(host_->fd(), size));
    }
    Status allocate(Task&, int mode, int64_t offset, int64_t size) override {
        inode_->note_modified();
        return host_status(::fallocate(host_->fd(), mode, offset, size));
    }
    Status sync(Task&, bool data_only) override { return inode_->sync_node(data_only); }
    Result<MapSource> map_source(Task&, int, bool) override {
        if (writable()) {
            inode_->note_modified();  // a shared mapping writes without us
        }
        return MapSource{host_->fd(), 0, (flags() & O_ACCMODE) == O_RDWR};
    }

  private:
    static Status host_status(int returned) {
        return returned == 0 ? Status() : Status(Errno(errno));
    }

    Result<int64_t> size(Task&) override {
        struct stat st;
        if (fstat(host_->fd(), &st) != 0) {
            return Errno(errno);
        }
        return st.st_size;
    }
    Result<size_t> append(Task& task, IoBuffer& source, int64_t& end) override {
        TRY(limit_file_size(task, source, TRY(size(task))));
        const auto n = source.take_to_host(host_->fd(), source.remaining(), 0);
        inode_->note_modified();
        end = TRY(size(task));
        return n;
    }
    Result<int64_t> seek_data(Task&, int64_t offset, int whence) override {
        // Nobody uses the host descriptor's own position.
        return host_result(static_cast<int64_t>(lseek(host_->fd(), offset, whence)));
    }

    const RefPtr<GoferInode> inode_;
    const RefPtr<HostFile> host_;
};

}  // namespace

Result<RefPtr<HostFile>> GoferInode::host_file(bool for_writing) {
    GoferFileSystem& fs = gofer();
    {
        MutexLock lock(fs.mu_);
        if (write_file_) {
            return write_file_;
        }
        if (!for_writing && read_file_) {
            return read_file_;
        }
    }
    gofer::OpenedNode opened = TRY(with_node(
        [&](gofer::NodeId id) { return fs.client().open(id, for_writing ? O_RDWR : O_RDONLY); }));
    if (!opened.file.valid()) {
        return Errno(EIO);
    }
    auto made = make_ref<HostFile>(std::move(opened.file));
    remember(opened.attributes);
    {
        RefPtr<HostFile> old = made;
        MutexLock lock(fs.mu_);
        std::swap(for_writing ? write_file_ : read_file_, old);
        lock.unlock();
    }
    fs.note_recent(*this);
    return made;
}

Result<RefPtr<File>> GoferInode::open(Task& task, const Path& path, uint32_t flags) {
    if (is_directory()) {
        return RefPtr<File>(make_ref<GoferDirectoryFile>(RefPtr<GoferInode>(this), flags));
    }
    if (!is_regular()) {
        return open_special(task, *this, path, TRY(attributes()).rdev, flags);
    }
    const bool writes = (flags & O_ACCMODE) != O_RDONLY;
    if (writes && (flags & O_APPEND) != 0) {
        // A descriptor of its own: the host then appends atomically against other writers too. A
        // later F_SETFL cannot take O_APPEND away from it.
        gofer::OpenedNode opened = TRY(with_node(
            [&](gofer::NodeId id) { return gofer().client().open(id, O_RDWR | O_APPEND); }));
        auto host = make_ref<HostFile>(std::move(opened.file));
        return RefPtr<File>(make_ref<GoferFile>(RefPtr<GoferInode>(this), std::move(host), flags));
    }
    RefPtr<HostFile> host = TRY(host_file(writes));
    return RefPtr<File>(make_ref<GoferFile>(RefPtr<GoferInode>(this), std::move(host), flags));
}

Status GoferInode::sync_node(bool data_only) {
    return with_node([&](gofer::NodeId id) { return gofer().client().fsync(id, data_only); });
}

Result<std::vector<DirectoryEntry>> GoferInode::list() {
    GoferFileSystem& fs = gofer();
    std::vector<DirectoryEntry> entries;
    {
        // Listed before and nobody else can have changed it: nothing to ask.
        MutexLock lock(fs.mu_);
        if (fs.exclusive() && listing_ != nullptr) {
            for (const auto& [name, attributes] : *listing_) {
                entries.push_back({name, attributes.ino, directory_type(attributes.mode)});
            }
            return entries;
        }
    }
    GoferFileSystem::Listing listing;
    bool complete = fs.exclusive();
    uint64_t cookie = 0;
    for (bool end = false; !end;) {
        gofer::DirChunk chunk = TRY(with_node(
            [&](gofer::NodeId id) { return fs.client().read_dir(id, cookie, fs.exclusive()); }));
        for (gofer::DirEntry& entry : chunk.entries) {
            entries.push_back({entry.name, entry.ino, entry.type});
            cookie = entry.cookie;
            if (!entry.has_attributes) {
                complete = false;
            } else if (complete) {
                listing.emplace(std::move(entry.name), entry.attributes);
            }
        }
        end = chunk.end || chunk.entries.empty();
    }
    if (complete) {
        fs.keep_listing(*this, std::move(listing));
    }
    return entries;
}

}  // namespace moat::kernel
