#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cri/base/files.h"
#include "cri/images/layer.h"
#include "cri/images/settler.h"
#include "cri/images/trash.h"
#include "cri/images/tree.h"
#include "cri/store/database.h"

namespace moat::cri {

struct ImageRecord {
    std::string id;                    ///< digest of its configuration
    std::string chain_id;              ///< names its root
    uint64_t size = 0;                 ///< of its unpacked layers
    std::string config;                ///< the configuration as the registry had it
    std::vector<std::string> tags;     ///< "docker.io/library/busybox:latest"
    std::vector<std::string> digests;  ///< "docker.io/library/busybox@sha256:..."
    std::string user;                  ///< that its configuration names; found ones have it

    /// What CRI calls image_ref: a digest that names it in a registry, else the id.
    const std::string& reference() const { return digests.empty() ? id : digests.front(); }
};

/// All images of a store as they were at one moment.
struct Catalogue {
    int64_t change;                   ///< image_changes.count
    std::vector<ImageRecord> images;  ///< the oldest first
    std::map<std::string, const ImageRecord*, std::less<>> by_id;
    std::map<std::string, const ImageRecord*, std::less<>> by_name;  ///< tags and digests
};

/// Images of one directory:
///
///     layers/HEX/{fs,changes}   one unpacked layer by its diff id
///     roots/HEX/fs              the layers of an image put together, by chain id
///     partial/HEX               blobs that are not here in full
///     tmp/XXX                   whatever is under construction, locked by its maker
///
/// Things get their name by rename(2) when they are whole, and then a row. Rows without a directory
/// do not happen (a power cut: settler.h); a directory without a row is taken over by the next who
/// makes it. Several processes may use a store: whoever adds holds `lock` shared from its first
/// look to its last row, and only a collection holds it exclusively.
class ImageStore {
  public:
    ImageStore(std::string directory, Database& database);
    /// Makes the directories, and removes what dead makers left in tmp.
    Status open();

    /// Keeps everything in the store from being collected while the lock lives.
    Result<FileLock> hold();

    /// By tag, by digest, by id, or by an unambiguous beginning of at least six digits of an id.
    Result<std::optional<ImageRecord>> find(const std::string& reference);
    Result<std::vector<ImageRecord>> list();
    /// All of them, out of memory unless the rows have changed: it then costs one row, which waits
    /// for no writer. What this process changes is in memory again when the change returns.
    Result<std::shared_ptr<const Catalogue>> catalogue();
    /// Removes the image that `reference` names, with all its names; its files go with the last
    /// container that uses them. An image that is not there is a success.
    Status remove(const std::string& reference);

    /// What a layer of an image consists of; the caller has hold().
    Result<StackedLayer> layer(const std::string& diff_id) const;

    // For those who add; the caller has hold().
    Result<bool> has_layer(const std::string& diff_id);
    /// Unpacks a blob as the layer `diff_id`. EBADMSG when its digest (if `blob_digest` is not
    /// empty) or its diff id is another one.
    Status add_layer(const std::string& blob_path, const std::string& blob_digest,
                     const std::string& diff_id, const UnpackLimits& limits = {});
    /// Makes the root of these layers, and the image with these names, which others lose.
    Status add_image(const ImageRecord& image, const std::vector<std::string>& diff_ids);
    /// Waits until all images are on the disk, which otherwise happens some time later.
    Status settle() { return settler_.settle_now(); }
    /// A fresh directory in tmp, removed with the object.
    class Workspace;
    Result<std::unique_ptr<Workspace>> workspace();

    /// The directory that containers of an image with this chain id get as their root, read-only.
    std::string root_path(const std::string& chain_id) const;
    /// Disk blocks and inodes of layers and roots.
    Result<Usage> usage();
    const std::string& directory() const { return directory_; }
    /// Blobs that are being downloaded, or were when it broke off (PartialBlobs).
    std::string partial_directory() const { return directory_ + "/partial"; }
    /// Removes layers and roots that no image and no container refers to. Does nothing while
    /// somebody adds images: whoever does so collects afterwards.
    Status collect();
    /// collect(), if one was refused since the last that happened, or `anyway`.
    Status collect_if_due(bool anyway);

    /// Removes a directory of moatd's that nobody uses any more; its files go in the background,
    /// unless the file system is short of room.
    Status discard(const std::string& path);

    static std::string chain_id(const std::vector<std::string>& diff_ids);

  private:
    Result<std::shared_ptr<const Catalogue>> read_catalogue();
    /// Kubelet removes things under pressure, looks at once how much of the disk is free, and
    /// evicts pods if that is not enough: when room is short, waits for the files that go in the
    /// background.
    void settle_trash();
    Status make_root(const std::string& chain, const std::vector<std::string>& diff_ids);
    Result<std::vector<std::string>> forget_unused();
    Status remove_unknown(const std::string& kind, const std::string& query);
    std::string layer_path(const std::string& diff_id) const;

    const std::string directory_;
    Database& database_;
    const std::unique_ptr<NumberQuery> changes_;
    std::mutex catalogue_mu_;
    std::shared_ptr<const Catalogue> catalogue_;  ///< guarded by catalogue_mu_
    std::atomic<bool> due_ = false;               ///< a collection was refused
    std::mutex roots_mu_;  ///< one root at a time: who comes second finds it made
    Settler settler_;
    Trash trash_;
};

class ImageStore::Workspace {
  public:
    Workspace(std::string path, FileLock lock) : path_(std::move(path)), lock_(std::move(lock)) {}
    ~Workspace() { (void)remove_tree(path_); }
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
    FileLock lock_;
};

}  // namespace moat::cri
