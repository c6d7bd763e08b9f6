#pragma once

// Files of the host, reached through the container's gofer. Walks, attributes and changes of names
// are requests; contents are read, written and mapped through descriptors that the gofer donates,
// without it. No lock is held during a request.

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/fs/directory_file.h"
#include "kernel/fs/gofer/client.h"
#include "kernel/fs/inode.h"
#include "kernel/fs/regular_file.h"

namespace moat::kernel {

class GoferInode;

/// Whether others than this sentry may change what is on the mount.
enum class GoferSharing : uint8_t {
    kExclusive,  ///< nobody: an image's layers, a volume of this container alone. All is cached.
    kShared,     ///< the host or other pods: names and attributes are asked for again.
};

/// A donated descriptor, shared by the descriptions and the inode that use it.
class HostFile final : public RefCounted {
  public:
    explicit HostFile(ScopedFd fd) : fd_(std::move(fd)) {}
    int fd() const { return fd_.get(); }

  private:
    const ScopedFd fd_;
};

class GoferFileSystem final : public FileSystem {
  public:
    /// Mount `index` of the gofer's plan. EINVAL: it has no such mount.
    static Result<RefPtr<GoferFileSystem>> create(std::shared_ptr<gofer::Client> client,
                                                  size_t index, GoferSharing sharing);
    ~GoferFileSystem() override;

    const char* type_name() const override { return "gofer"; }
    RefPtr<Inode> root() override;
    Result<struct statfs> statistics() override;
    bool dentries_are_stable() const override { return sharing_ == GoferSharing::kExclusive; }
    bool exclusive() const { return sharing_ == GoferSharing::kExclusive; }
    bool read_only() const { return read_only_; }

  private:
    friend class GoferInode;
    friend class GoferDirectoryFile;
    using Listing = std::unordered_map<std::string, gofer::Attributes>;

    GoferFileSystem(std::shared_ptr<gofer::Client> client, const gofer::Mount& mount,
                    GoferSharing sharing);
    /// The client, after holds that are no longer needed have been given back in one message.
    gofer::Client& client();
    void note_recent(GoferInode& inode);
    void keep_listing(GoferInode& directory, Listing listing);

    const std::shared_ptr<gofer::Client> client_;
    const gofer::Node root_node_;
    const GoferSharing sharing_;
    const bool read_only_;

    /// Guards the shape of the tree of inodes, their nodes and descriptors, and what is below.
    Mutex<LockRank::kFileSystem> mu_;
    std::vector<gofer::CloseItem> to_close_ GUARDED_BY(mu_);
    GoferInode* root_ GUARDED_BY(mu_) = nullptr;  // not owned
    size_t listed_entries_ GUARDED_BY(mu_) = 0;
    // Destroyed first: inodes unregister with what is above.
    std::deque<RefPtr<GoferInode>> listed_ GUARDED_BY(mu_);  // have a listing, oldest first
    std::deque<RefPtr<GoferInode>> recent_ GUARDED_BY(mu_);  // have idle descriptors, oldest first
};

/// A file by its name: one inode for each (parent, name) that is in use. The gofer's node is asked
/// for when it is first needed: names learnt from a listing cost no request of their own.
class GoferInode final : public Inode {
  public:
    ~GoferInode() override;

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

    GoferFileSystem& gofer() const { return static_cast<GoferFileSystem&>(file_system()); }
    /// A descriptor for reading (writing too), from the gofer if there is none yet.
    Result<RefPtr<HostFile>> host_file(bool for_writing);
    /// The gofer's node; asked for by name if it is not known.
    Result<gofer::NodeId> node();
    /// Contents were changed through a descriptor: size and times have to be looked at again.
    void note_modified() { stale_.store(true, std::memory_order_relaxed); }
    Status sync_node(bool data_only);
    /// The entries below, from the gofer.
    Result<std::vector<DirectoryEntry>> list();

  private:
    friend class GoferFileSystem;
    GoferInode(GoferFileSystem& fs, RefPtr<GoferInode> parent, std::string name,
               const gofer::Attributes& attributes, gofer::NodeId node, uint64_t holds);
    void last_unref() override;

    enum class Known : uint8_t { kYes, kAbsent, kUnknown };
    Known known_child(std::string_view name, RefPtr<GoferInode>& child);
    RefPtr<GoferInode> adopt_child(std::string_view name, const gofer::Node& node);
    RefPtr<GoferInode> make_child_locked(std::string_view name, const gofer::Attributes& attributes,
                                         gofer::NodeId node);
    void forget_child_locked(std::string_view name);
    void forget_node();
    void count_one_link_less();
    void remember(const gofer::Attributes& attributes);
    void remember_host(const struct stat& st);
    void drop_listing_locked();
    bool is_unlinked();
    /// Runs `request(node)` again with a fresh node if the host has put another file in the place.
    template <typename Request>
    auto with_node(Request request) -> decltype(request(gofer::NodeId{})) {
        auto first = request(TRY(node()));
        if (!first.ok() && first.error() == EBADF && is_unlinked()) {
            return Errno(ENOENT);  // removed, and its node given back, since it was looked up
        }
        if (first.ok() || !(first.error() == ESTALE) || gofer().exclusive()) {
            return first;
        }
        forget_node();
        return request(TRY(node()));
    }

    // Guarded by the file system's lock
    RefPtr<GoferInode> parent_;
    std::string name_;
    uint64_t holds_;
    std::unordered_map<std::string, GoferInode*>
        children_;                                       // not owned: they unregister themselves
    std::unique_ptr<GoferFileSystem::Listing> listing_;  // complete, or null
    RefPtr<HostFile> read_file_;
    RefPtr<HostFile> write_file_;
    bool unlinked_ = false;

    std::atomic<gofer::NodeId> node_;      // 0: not known; written under the file system's lock
    std::atomic<bool> stale_{false};       // the attributes below may be out of date
    std::atomic<int64_t> fresh_until_{0};  // shared mounts: CLOCK_MONOTONIC
    Mutex<LockRank::kInodeAttributes> attributes_mu_;
    InodeAttributes attributes_ GUARDED_BY(attributes_mu_);
    std::string link_target_ GUARDED_BY(attributes_mu_);
};

}  // namespace moat::kernel
