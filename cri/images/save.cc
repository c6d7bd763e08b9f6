#include "cri/images/save.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "cri/images/image_config.h"
#include "cri/images/manifest.h"
#include "cri/images/reference.h"
#include "cri/images/tar_writer.h"
#include "kernel/base/scoped_fd.h"

namespace moat::cri {

using nlohmann::json;

namespace {

constexpr char kLayerType[] = "application/vnd.oci.image.layer.v1.tar";
constexpr char kConfigType[] = "application/vnd.oci.image.config.v1+json";
constexpr char kManifestType[] = "application/vnd.oci.image.manifest.v1+json";
constexpr char kIndexType[] = "application/vnd.oci.image.index.v1+json";

std::string blob_name(const std::string& digest) { return "blobs/sha256/" + digest_hex(digest); }

/// The archive's blobs, collected before the first byte goes out: small ones here, layers in files.
class Saver {
  public:
    Saver(ImageStore& store, std::string work) : store_(store), work_(std::move(work)) {}

    Status add(const ImageRecord& image, const std::vector<std::string>& tags);
    Status write(int fd);

  private:
    struct Layer {
        std::string digest;
        std::string path;
        int64_t size = 0;
    };
    Result<Layer> layer(const std::string& diff_id);
    json small_blob(const std::string& media_type, const std::string& text) {
        const std::string digest = Sha256::of(text);
        small_[digest] = text;
        return {{"mediaType", media_type}, {"digest", digest}, {"size", text.size()}};
    }

    ImageStore& store_;
    const std::string work_;
    std::map<std::string, Layer> layers_;  ///< by the diff id in the store
    std::map<std::string, std::string> small_;
    json index_ = json::array();
    json docker_ = json::array();
};

Result<Saver::Layer> Saver::layer(const std::string& diff_id) {
    if (const auto it = layers_.find(diff_id); it != layers_.end()) {
        return it->second;
    }
    Layer made;
    made.path = work_ + "/" + digest_hex(diff_id);
    const ScopedFd fd(open(made.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd) {
        return Error::from_errno(errno, "create " + made.path);
    }
    const StackedLayer stored = TRY(store_.layer(diff_id));
    TarWriter tar(fd.get());
    TRY(write_layer(tar, stored.directory, stored.changes));
    TRY(tar.finish());
    made.digest = tar.digest();
    made.size = tar.size();
    layers_[diff_id] = made;
    return made;
}

Status Saver::add(const ImageRecord& image, const std::vector<std::string>& tags) {
    json config = json::parse(image.config, nullptr, false);
    const ImageConfig parsed = TRY(parse_image_config(image.config));
    json layers = json::array();
    json diff_ids = json::array();
    json names = json::array();
    for (const std::string& diff_id : parsed.diff_ids) {
        const Layer packed = TRY_STEP("layer " + diff_id, layer(diff_id));
        layers.push_back(
            {{"mediaType", kLayerType}, {"digest", packed.digest}, {"size", packed.size}});
        diff_ids.push_back(packed.digest);
        names.push_back(blob_name(packed.digest));
    }
    config["rootfs"]["diff_ids"] = diff_ids;
    const json described = small_blob(kConfigType, config.dump());
    const json manifest = {{"schemaVersion", 2},
                           {"mediaType", kManifestType},
                           {"config", described},
                           {"layers", layers}};
    json entry = small_blob(kManifestType, manifest.dump());
    if (tags.empty()) {
        index_.push_back(entry);
    }
    for (const std::string& tag : tags) {
        entry["annotations"] = {{"io.containerd.image.name", tag},
                                {"org.opencontainers.image.ref.name", tag}};
        index_.push_back(entry);
    }
    docker_.push_back({{"Config", blob_name(described["digest"].get<std::string>())},
                       {"RepoTags", tags},
                       {"Layers", names}});
    return {};
}

Status Saver::write(int fd) {
    TarWriter tar(fd);
    TRY(tar.file("oci-layout", R"({"imageLayoutVersion":"1.0.0"})"));
    TRY(tar.file(
        "index.json",
        json{{"schemaVersion", 2}, {"mediaType", kIndexType}, {"manifests", index_}}.dump()));
    TRY(tar.file("manifest.json", docker_.dump()));
    for (const auto& [digest, text] : small_) {
        TRY(tar.file(blob_name(digest), text));
    }
    std::map<std::string, const Layer*> by_digest;
    for (const auto& [diff_id, layer] : layers_) {
        by_digest[layer.digest] = &layer;
    }
    for (const auto& [digest, layer] : by_digest) {
        const ScopedFd blob(open(layer->path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!blob) {
            return Error::from_errno(errno, "open " + layer->path);
        }
        TRY(tar.file(blob_name(digest), blob.get(), layer->size));
    }
    return tar.finish();
}

}  // namespace

Status save_images(ImageStore& store, const std::vector<std::string>& references, int fd) {
    const FileLock hold = TRY(store.hold());
    const auto work = TRY(store.workspace());
    // An image that is named twice is one image with two names.
    std::vector<ImageRecord> images;
    std::map<std::string, std::vector<std::string>> tags;
    for (const std::string& name : references) {
        const auto image = TRY(store.find(name));
        if (!image) {
            return not_found("image \"" + name + "\": not here");
        }
        if (!tags.contains(image->id)) {
            images.push_back(*image);
        }
        auto& of_image = tags[image->id];
        const auto reference = parse_reference(name);
        const std::string tagged =
            reference.ok() && reference->digest.empty() ? reference->tagged() : "";
        const bool by_tag =
            std::find(image->tags.begin(), image->tags.end(), tagged) != image->tags.end();
        for (const std::string& tag : by_tag ? std::vector{tagged} : image->tags) {
            if (std::find(of_image.begin(), of_image.end(), tag) == of_image.end()) {
                of_image.push_back(tag);
            }
        }
    }
    Saver saver(store, work->path());
    for (const ImageRecord& image : images) {
        TRY_STEP("image " + image.id, saver.add(image, tags[image.id]));
    }
    return saver.write(fd);
}

}  // namespace moat::cri
