#include "cri/images/image_store.h"

#include "cri/base/fault_point.h"

#include <dirent.h>
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <set>

#include "cri/base/sha256.h"
#include "cri/images/blob_reader.h"
#include "cri/images/image_config.h"
#include "cri/images/reference.h"
#include "cri/images/tree.h"

namespace moat::cri {

namespace {

/// rename(2) of a finished directory to its place. One that is there already was made by somebody
/// else at the same time: it is as good as ours, for the rename is the last step.
Status move_into_place(const std::string& from, const std::string& to) {
    fault_point("image.before a rename");
    if (rename(from.c_str(), to.c_str()) != 0 && errno != EEXIST && errno != ENOTEMPTY) {
        return Error::from_errno(errno, "rename to " + to);
    }
    return {};
}

}  // namespace

ImageStore::ImageStore(std::string directory, Database& database)
    : directory_(std::move(directory)),
      database_(database),
      changes_(database.number_query("SELECT count FROM image_changes")),
      settler_(directory_, database),
      trash_(directory_ + "/tmp") {}

Status ImageStore::open() {
    // 0700: layers have set-uid programs of strangers, which the node's users must not reach.
    TRY(make_directories(directory_, 0700));
    for (const char* name : {"/layers", "/roots", "/tmp", "/partial"}) {
        TRY(make_directories(directory_ + name, 0700));
    }
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir((directory_ + "/tmp").c_str()), closedir);
    if (dir == nullptr) {
        return Error::from_errno(errno, "open " + directory_ + "/tmp");
    }
    while (const dirent* entry = readdir(dir.get())) {
        const std::string path = directory_ + "/tmp/" + entry->d_name;
        if (entry->d_name[0] == '.') {
            continue;
        }
        // Its maker holds the lock as long as it lives.
        const auto lock = FileLock::acquire(path, FileLock::Mode::kExclusive, FileLock::Wait::kNo);
        if (lock.ok()) {
            TRY(remove_tree(path));
        }
    }
    TRY(settler_.discard_lost());
    settler_.settle();
    return collect();
}

Result<FileLock> ImageStore::hold() {
    return FileLock::acquire(directory_ + "/lock", FileLock::Mode::kShared);
}

std::string ImageStore::chain_id(const std::vector<std::string>& diff_ids) {
    // OCI image-spec, config.md "Layer ChainID". An image of no layers has an id of its own here.
    if (diff_ids.empty()) {
        return Sha256::of("");
    }
    std::string chain = diff_ids.front();
    for (size_t i = 1; i < diff_ids.size(); ++i) {
        chain = Sha256::of(chain + " " + diff_ids[i]);
    }
    return chain;
}

std::string ImageStore::layer_path(const std::string& diff_id) const {
    return directory_ + "/layers/" + digest_hex(diff_id);
}

std::string ImageStore::root_path(const std::string& chain_id) const {
    // A single layer that stands alone is its own root, and its chain id is its diff id.
    const std::string root = directory_ + "/roots/" + digest_hex(chain_id) + "/fs";
    return access(root.c_str(), F_OK) == 0 ? root : layer_path(chain_id) + "/fs";
}

Result<std::shared_ptr<const Catalogue>> ImageStore::read_catalogue() {
    auto all = std::make_shared<Catalogue>();
    auto transaction = TRY(database_.begin_reading());
    TRY(transaction.query("SELECT count FROM image_changes",
                          [&](const Row& row) { all->change = row.integer(0); }));
    TRY(transaction.query("SELECT id, chain_id, size, config FROM images ORDER BY created_at, id",
                          [&](const Row& row) {
                              ImageRecord& image = all->images.emplace_back();
                              image.id = row.text(0);
                              image.chain_id = row.text(1);
                              image.size = static_cast<uint64_t>(row.integer(2));
                              image.config = row.text(3);
                          }));
    std::map<std::string_view, ImageRecord*> by_id;
    for (ImageRecord& image : all->images) {
        by_id[image.id] = &image;
    }
    TRY(transaction.query(
        "SELECT image_id, name, kind FROM image_names ORDER BY name", [&](const Row& row) {
            if (const auto it = by_id.find(row.text(0)); it != by_id.end()) {
                ImageRecord& image = *it->second;
                (row.integer(2) == 0 ? image.tags : image.digests).push_back(row.text(1));
                all->by_name[row.text(1)] = &image;
            }
        }));
    TRY(transaction.commit());
    for (ImageRecord& image : all->images) {
        if (const auto config = parse_image_config(image.config); config.ok()) {
            image.user = config->user;
        }
        all->by_id[image.id] = &image;
    }
    return std::shared_ptr<const Catalogue>(std::move(all));
}

Result<std::shared_ptr<const Catalogue>> ImageStore::catalogue() {
    const auto change = changes_ != nullptr ? changes_->ask() : std::nullopt;
    {
        const std::lock_guard lock(catalogue_mu_);
        if (change && catalogue_ != nullptr && catalogue_->change == *change) {
            return catalogue_;
        }
    }
    auto fresh = TRY(read_catalogue());
    const std::lock_guard lock(catalogue_mu_);
    if (catalogue_ == nullptr || catalogue_->change < fresh->change) {
        catalogue_ = fresh;
    }
    return fresh;
}

Result<std::vector<ImageRecord>> ImageStore::list() { return TRY(catalogue())->images; }

Result<std::optional<ImageRecord>> ImageStore::find(const std::string& text) {
    const auto all = TRY(catalogue());
    const auto in = [](const auto& map, const std::string& key) {
        const auto it = map.find(key);
        return it == map.end() ? std::optional<ImageRecord>() : *it->second;
    };
    if (is_digest(text)) {
        return in(all->by_id, text);
    }
    if (const auto reference = parse_reference(text); reference.ok()) {
        auto found =
            in(all->by_name, reference->digest.empty() ? reference->tagged()
                                                       : reference->by_digest(reference->digest));
        if (found) {
            return found;
        }
    }
    const std::string hex = text.rfind("sha256:", 0) == 0 ? text.substr(7) : text;
    if (hex.size() >= 6 && hex.find_first_not_of("0123456789abcdef") == std::string::npos) {
        const std::string beginning = "sha256:" + hex;
        const auto first = all->by_id.lower_bound(beginning);
        const auto begins = [&](auto it) {
            return it != all->by_id.end() && it->first.starts_with(beginning);
        };
        if (begins(first) && !begins(std::next(first))) {
            return std::optional<ImageRecord>(*first->second);
        }
    }
    return std::optional<ImageRecord>();
}

namespace {

/// So full that kubelet may be after space: by default it collects images at 85 % and evicts pods
/// at 85 or 90 %.
bool is_short_of_space(const std::string& directory) {
    struct statvfs found;
    return ::statvfs(directory.c_str(), &found) == 0 && found.f_bavail < found.f_blocks / 4;
}

}  // namespace

void ImageStore::settle_trash() {
    constexpr std::chrono::seconds kLongest(60);
    if (is_short_of_space(directory_) && !trash_.wait_empty(kLongest)) {
        spdlog::warn("what was removed is not gone within {} s", kLongest.count());
    }
}

Status ImageStore::discard(const std::string& path) {
    TRY(trash_.take(path));
    settle_trash();
    return {};
}

Status ImageStore::remove(const std::string& reference) {
    const auto image = TRY(find(reference));
    if (!image) {
        return {};
    }
    TRY(database_.run_freeing("DELETE FROM images WHERE id=?", image->id));
    spdlog::info("image {}: removed", image->id);
    TRY(catalogue());
    TRY(collect());
    settle_trash();
    return {};
}

Result<std::unique_ptr<ImageStore::Workspace>> ImageStore::workspace() {
    // Another moatd that starts removes what nobody has locked: also what is made here right now.
    constexpr int kTries = 100;
    for (int left = kTries;; --left) {
        std::string path = directory_ + "/tmp/XXXXXX";
        if (mkdtemp(path.data()) == nullptr) {
            return Error::from_errno(errno, "mkdir " + path);
        }
        auto lock = FileLock::of_directory(path);
        if (lock.ok()) {
            return std::make_unique<Workspace>(std::move(path), std::move(*lock));
        }
        const int code = lock.error().code();
        if ((code != ENOENT && code != EWOULDBLOCK) || left == 1) {
            return lock.error();
        }
    }
}

Result<bool> ImageStore::has_layer(const std::string& diff_id) {
    bool found = false;
    TRY(database_.query(
        "SELECT 1 FROM layers WHERE diff_id=?", [&](const Row&) { found = true; }, diff_id));
    return found;
}

Status ImageStore::add_layer(const std::string& blob_path, const std::string& blob_digest,
                             const std::string& diff_id, const UnpackLimits& limits) {
    const auto work = TRY(workspace());
    const std::string step = "layer " + diff_id;
    const std::string files = work->path() + "/fs";
    TRY_STEP(step, make_directories(files, 0755));
    const auto reader = TRY_STEP(step, BlobReader::open(blob_path));
    const UnpackedLayer layer = TRY_STEP(step + ": unpack", unpack_layer(*reader, files, limits));
    if (const std::string actual = reader->blob_digest();
        !blob_digest.empty() && actual != blob_digest) {
        return Error(EBADMSG,
                     step + ": the blob should have digest " + blob_digest + " and has " + actual);
    }
    if (const std::string actual = reader->diff_id(); actual != diff_id) {
        return Error(EBADMSG, step + ": what the blob unpacks to has digest " + actual);
    }
    TRY_STEP(step, write_file(work->path() + "/changes", encode_changes(layer.changes), 0600));
    TRY_STEP(step, move_into_place(work->path(), layer_path(diff_id)));
    return database_.run(
        "INSERT OR REPLACE INTO layers (diff_id, bytes, inodes, unsynced) VALUES (?,?,?,?)",
        diff_id, layer.usage.bytes, layer.usage.inodes, settler_.mark());
}

Result<StackedLayer> ImageStore::layer(const std::string& diff_id) const {
    const std::string text = TRY(read_file(layer_path(diff_id) + "/changes", 256 << 20));
    auto changes = TRY(decode_changes(text));
    return StackedLayer{layer_path(diff_id) + "/fs", std::move(changes)};
}

Status ImageStore::make_root(const std::string& chain, const std::vector<std::string>& diff_ids) {
    const std::lock_guard lock(roots_mu_);
    bool made = false;
    TRY(database_.query(
        "SELECT 1 FROM roots WHERE chain_id=?", [&](const Row&) { made = true; }, chain));
    if (made) {
        return {};
    }
    Usage usage;
    std::vector<StackedLayer> layers;
    for (const std::string& diff_id : diff_ids) {
        layers.push_back(TRY(layer(diff_id)));
    }
    // Whiteouts of a bottom layer hide nothing, but a link into a layer below it has no target.
    if (layers.size() != 1 || !layers.front().changes.links.empty()) {
        const auto work = TRY(workspace());
        TRY(make_directories(work->path() + "/fs", 0755));
        usage = TRY(stack_layers(layers, work->path() + "/fs"));
        TRY(move_into_place(work->path(), directory_ + "/roots/" + digest_hex(chain)));
    }
    return database_.run(
        "INSERT OR REPLACE INTO roots (chain_id, diff_ids, bytes, inodes, unsynced)"
        " VALUES (?,?,?,?,?)",
        chain, nlohmann::json(diff_ids).dump(), usage.bytes, usage.inodes, settler_.mark());
}

Status ImageStore::add_image(const ImageRecord& image, const std::vector<std::string>& diff_ids) {
    TRY_STEP("image " + image.id, make_root(image.chain_id, diff_ids));
    uint64_t size = 0;
    for (const std::string& diff_id : diff_ids) {
        TRY(database_.query(
            "SELECT bytes FROM layers WHERE diff_id=?",
            [&](const Row& row) { size += static_cast<uint64_t>(row.integer(0)); }, diff_id));
    }
    auto transaction = TRY(database_.begin());
    TRY(
        transaction.run("INSERT INTO images (id, chain_id, size, config, created_at, unsynced)"
                        " VALUES (?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING",
                        image.id, image.chain_id, size, image.config, now_ns(), settler_.mark()));
    for (const auto* names : {&image.tags, &image.digests}) {
        for (const std::string& name : *names) {
            TRY(transaction.run(
                "INSERT OR REPLACE INTO image_names (name, kind, image_id) VALUES (?,?,?)", name,
                names == &image.tags ? 0 : 1, image.id));
        }
    }
    TRY(transaction.commit());
    TRY(catalogue());
    settler_.settle();
    return {};
}

Result<Usage> ImageStore::usage() {
    Usage usage;
    TRY(
        database_.query("SELECT (SELECT COALESCE(SUM(bytes),0) FROM layers) + (SELECT "
                        "COALESCE(SUM(bytes),0) FROM roots),"
                        " (SELECT COALESCE(SUM(inodes),0) FROM layers) + (SELECT "
                        "COALESCE(SUM(inodes),0) FROM roots)",
                        [&](const Row& row) {
                            usage.bytes = static_cast<uint64_t>(row.integer(0));
                            usage.inodes = static_cast<uint64_t>(row.integer(1));
                        }));
    return usage;
}

Status ImageStore::collect_if_due(bool anyway) { return anyway || due_ ? collect() : Status(); }

/// The rows of layers and roots that nobody refers to; returns their directories.
Result<std::vector<std::string>> ImageStore::forget_unused() {
    std::vector<std::string> gone;
    // The rows go first, and are off the disk before a file is: after a kill in between, a
    // directory without a row is merely removed later.
    auto transaction = TRY(database_.begin(Survives::kPowerCut));
    TRY(transaction.query(
        "DELETE FROM roots WHERE chain_id NOT IN (SELECT chain_id FROM images)"
        " AND chain_id NOT IN (SELECT chain_id FROM containers)"
        " AND chain_id NOT IN (SELECT chain_id FROM container_volumes) RETURNING chain_id",
        [&](const Row& row) { gone.push_back(directory_ + "/roots/" + digest_hex(row.text(0))); }));
    TRY(
        transaction.query("DELETE FROM layers WHERE diff_id NOT IN"
                          " (SELECT value FROM roots, json_each(roots.diff_ids))"
                          " RETURNING diff_id",
                          [&](const Row& row) { gone.push_back(layer_path(row.text(0))); }));
    if (!gone.empty()) {
        fault_point("image.before a collection's commit");
        TRY(transaction.commit());
        fault_point("image.collection committed");
    }
    return gone;
}

Status ImageStore::collect() {
    const auto lock =
        FileLock::acquire(directory_ + "/lock", FileLock::Mode::kExclusive, FileLock::Wait::kNo);
    if (!lock.ok()) {
        due_ = true;
        return lock.error().code() == EWOULDBLOCK ? Status() : Status(lock.error());
    }
    due_ = false;
    auto gone = forget_unused();
    if (!gone.ok() && gone.error().code() == ENOSPC && database_.make_room()) {
        gone = forget_unused();
    }
    if (!gone.ok()) {
        return gone.error();
    }
    for (const std::string& path : *gone) {
        TRY(trash_.take(path));
    }
    TRY(remove_unknown("layers", "SELECT diff_id FROM layers"));
    return remove_unknown("roots", "SELECT chain_id FROM roots");
}

/// Directories that got their name but no row: after a power cut they need not be whole.
Status ImageStore::remove_unknown(const std::string& kind, const std::string& query) {
    std::set<std::string> known;
    TRY(database_.query(query, [&](const Row& row) { known.insert(digest_hex(row.text(0))); }));
    const std::string path = directory_ + "/" + kind;
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(path.c_str()), closedir);
    if (dir == nullptr) {
        return Error::from_errno(errno, "open " + path);
    }
    while (const dirent* entry = readdir(dir.get())) {
        if (entry->d_name[0] != '.' && !known.contains(entry->d_name)) {
            TRY(trash_.take(path + "/" + entry->d_name));
        }
    }
    return {};
}

}  // namespace moat::cri
