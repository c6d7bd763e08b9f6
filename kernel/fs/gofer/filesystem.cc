#include <cstring>

#include "kernel/fs/dentry.h"
#include "kernel/fs/gofer/gofer.h"

namespace moat::kernel {

namespace {
/// Inodes whose descriptors are kept though nobody has the file open, so that opening again is
/// free.
constexpr size_t kMaxRecent = 512;
/// Names kept of directories that were listed, so that find and ls need no request for each.
constexpr size_t kMaxListedEntries = 16384;
/// Holds are given back this many at a time.
constexpr size_t kCloseBatch = 64;
}  // namespace

Result<RefPtr<GoferFileSystem>> GoferFileSystem::create(std::shared_ptr<gofer::Client> client,
                                                        size_t index, GoferSharing sharing) {
    if (index >= client->mounts().size()) {
        return Errno(EINVAL);
    }
    const gofer::Mount& mount = client->mounts()[index];
    return adopt_ref(new GoferFileSystem(client, mount, sharing));
}

GoferFileSystem::GoferFileSystem(std::shared_ptr<gofer::Client> client, const gofer::Mount& mount,
                                 GoferSharing sharing)
    : client_(std::move(client)),
      root_node_(mount.root),
      sharing_(sharing),
      read_only_((mount.flags & gofer::kMountReadOnly) != 0) {}

GoferFileSystem::~GoferFileSystem() = default;

RefPtr<Inode> GoferFileSystem::root() {
    MutexLock lock(mu_);
    if (root_ != nullptr && root_->try_ref()) {
        return adopt_ref(root_);
    }
    // The hold on the root is the client's own.
    auto made =
        adopt_ref(new GoferInode(*this, nullptr, "", root_node_.attributes, root_node_.id, 0));
    root_ = made.get();
    return made;
}

Result<struct statfs> GoferFileSystem::statistics() {
    const gofer::StatfsReply reply = TRY(client().statfs(root_node_.id));
    struct statfs st {};
    st.f_type = static_cast<long>(reply.type);
    st.f_bsize = static_cast<long>(reply.block_size);
    st.f_frsize = static_cast<long>(reply.fragment_size);
    st.f_blocks = reply.blocks;
    st.f_bfree = reply.blocks_free;
    st.f_bavail = reply.blocks_available;
    st.f_files = reply.files;
    st.f_ffree = reply.files_free;
    st.f_namelen = static_cast<long>(reply.name_length);
    return st;
}

gofer::Client& GoferFileSystem::client() {
    std::vector<gofer::CloseItem> items;
    {
        MutexLock lock(mu_);
        if (to_close_.size() >= kCloseBatch) {
            items.swap(to_close_);
        }
    }
    if (!items.empty()) {
        client_->close(items.data(), items.size());
    }
    return *client_;
}

void GoferFileSystem::note_recent(GoferInode& inode) {
    std::vector<RefPtr<RefCounted>> dropped;
    MutexLock lock(mu_);
    recent_.push_back(RefPtr<GoferInode>(&inode));
    // Two looks for each that comes: those still open go to the back, so the list shrinks again
    // once they are closed.
    for (int i = 0; i < 2 && recent_.size() > kMaxRecent; i++) {
        RefPtr<GoferInode> oldest = std::move(recent_.front());
        recent_.pop_front();
        bool busy = false;
        for (RefPtr<HostFile>* file : {&oldest->read_file_, &oldest->write_file_}) {
            if (*file && (*file)->ref_count() == 1) {
                dropped.push_back(std::move(*file));
                *file = nullptr;
            }
            busy = busy || *file;
        }
        if (busy) {
            recent_.push_back(std::move(oldest));
        } else {
            dropped.push_back(std::move(oldest));
        }
    }
    lock.unlock();
}

void GoferFileSystem::keep_listing(GoferInode& directory, Listing listing) {
    if (listing.size() > kMaxListedEntries) {
        return;
    }
    std::vector<RefPtr<RefCounted>> dropped;
    MutexLock lock(mu_);
    if (directory.listing_ == nullptr) {
        listed_.push_back(RefPtr<GoferInode>(&directory));
    } else {
        listed_entries_ -= directory.listing_->size();
    }
    listed_entries_ += listing.size();
    directory.listing_ = std::make_unique<Listing>(std::move(listing));
    while (listed_entries_ > kMaxListedEntries && listed_.front().get() != &directory) {
        RefPtr<GoferInode> oldest = std::move(listed_.front());
        listed_.pop_front();
        if (oldest->listing_ != nullptr) {
            listed_entries_ -= oldest->listing_->size();
            oldest->listing_.reset();
        }
        dropped.push_back(std::move(oldest));
    }
    lock.unlock();
}

}  // namespace moat::kernel
