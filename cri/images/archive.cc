#include "cri/images/archive.h"

#include <fcntl.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cri/base/rooted.h"
#include "cri/base/sha256.h"
#include "cri/images/blob_reader.h"
#include "cri/images/image_config.h"
#include "cri/images/manifest.h"
#include "cri/images/reference.h"

namespace moat::cri {

using nlohmann::json;

namespace {

/// An archive that is unpacked in a workspace; its members are read below that directory only.
class Archive {
  public:
    Archive(ImageStore& store, std::string directory)
        : store_(store), directory_(std::move(directory)) {}

    Result<std::vector<LoadedImage>> load(const std::string& name);

  private:
    Result<std::vector<LoadedImage>> load_layout(const std::string& name);
    Result<std::vector<LoadedImage>> load_docker(const std::string& name);
    Result<LoadedImage> add(const std::string& config_text,
                            const std::vector<std::string>& layer_members,
                            const std::vector<std::string>& blob_digests,
                            const std::vector<std::string>& names,
                            const std::string& manifest_digest);
    Result<std::string> blob(const Descriptor& descriptor, size_t max_bytes);
    Result<std::string> file(const std::string& member);

    ImageStore& store_;
    std::string directory_;
};

/// Below the unpacked archive, without links: what a layer's unpacking opens by its path.
Result<std::string> Archive::file(const std::string& member) {
    const std::string clean = TRY_STEP("member \"" + member + "\"", clean_member_name(member));
    const ScopedFd root(open(directory_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root) {
        return Error::from_errno(errno, "open " + directory_);
    }
    const auto fd = open_in_root(root.get(), clean, O_PATH);
    if (!fd.ok()) {
        return invalid_argument("archive: member \"" + member + "\": " + fd.error().message());
    }
    char resolved[4096];
    const std::string link = "/proc/self/fd/" + std::to_string(fd->get());
    const ssize_t n = readlink(link.c_str(), resolved, sizeof(resolved));
    if (n <= 0) {
        return Error::from_errno(errno, "resolve " + clean);
    }
    return std::string(resolved, static_cast<size_t>(n));
}

Result<std::string> Archive::blob(const Descriptor& descriptor, size_t max_bytes) {
    const std::string member = "blobs/sha256/" + digest_hex(descriptor.digest);
    const std::string text = TRY_STEP("archive", read_in_root(directory_, member, max_bytes));
    if (Sha256::of(text) != descriptor.digest) {
        return Error(EBADMSG, "archive: " + member + ": its digest is " + Sha256::of(text));
    }
    return text;
}

Result<LoadedImage> Archive::add(const std::string& config_text,
                                 const std::vector<std::string>& layer_members,
                                 const std::vector<std::string>& blob_digests,
                                 const std::vector<std::string>& names,
                                 const std::string& manifest_digest) {
    const ImageConfig config = TRY(parse_image_config(config_text));
    if (config.diff_ids.size() != layer_members.size()) {
        return invalid_argument("archive: " + std::to_string(layer_members.size()) +
                                " layers, but the configuration has " +
                                std::to_string(config.diff_ids.size()) + " rootfs.diff_ids");
    }
    ImageRecord image;
    image.id = Sha256::of(config_text);
    image.chain_id = ImageStore::chain_id(config.diff_ids);
    image.config = config_text;
    for (const std::string& name : names) {
        const Reference reference = TRY(parse_reference(name));
        if (!reference.tag.empty()) {
            image.tags.push_back(reference.tagged());
        }
        if (!manifest_digest.empty()) {
            image.digests.push_back(reference.by_digest(manifest_digest));
        }
    }
    for (size_t i = 0; i < layer_members.size(); ++i) {
        if (!TRY(store_.has_layer(config.diff_ids[i]))) {
            TRY(store_.add_layer(TRY(file(layer_members[i])), blob_digests[i], config.diff_ids[i]));
        }
    }
    TRY(store_.add_image(image, config.diff_ids));
    return LoadedImage{image.id, image.tags};
}

Result<std::vector<LoadedImage>> Archive::load_layout(const std::string& name) {
    const std::string text =
        TRY_STEP("archive", read_in_root(directory_, "index.json", kMaxManifest));
    const auto top =
        TRY_STEP("index.json", parse_manifest(text, "application/vnd.oci.image.index.v1+json"));
    if (!std::holds_alternative<Index>(top)) {
        return invalid_argument("index.json: not an index");
    }
    const auto& entries = std::get<Index>(top).entries;
    if (!name.empty() && entries.size() > 1) {
        return invalid_argument("index.json: " + std::to_string(entries.size()) +
                                " images, but one name");
    }
    std::vector<LoadedImage> loaded;
    for (const Index::Entry& entry : entries) {
        const std::string manifest_text = TRY(blob(entry.descriptor, kMaxManifest));
        auto parsed = TRY(parse_manifest(manifest_text, entry.descriptor.media_type));
        if (std::holds_alternative<Index>(parsed)) {
            const Descriptor chosen = TRY(choose_platform(std::get<Index>(parsed)));
            parsed = TRY(parse_manifest(TRY(blob(chosen, kMaxManifest)), chosen.media_type));
        }
        if (!std::holds_alternative<Manifest>(parsed)) {
            return invalid_argument("manifest " + entry.descriptor.digest +
                                    ": lists nested too deep");
        }
        const Manifest& manifest = std::get<Manifest>(parsed);
        std::vector<std::string> members;
        std::vector<std::string> digests;
        for (const Descriptor& layer : manifest.layers) {
            members.push_back("blobs/sha256/" + digest_hex(layer.digest));
            digests.push_back(layer.digest);
        }
        std::vector<std::string> names;
        if (!name.empty()) {
            names = {name};
        } else if (!entry.full_name.empty()) {
            names = {entry.full_name};
        } else if (!entry.reference_name.empty()) {
            names = {entry.reference_name};
        }
        loaded.push_back(TRY(add(TRY(blob(manifest.config, kMaxConfig)), members, digests, names,
                                 entry.descriptor.digest)));
    }
    return loaded;
}

Result<std::vector<LoadedImage>> Archive::load_docker(const std::string& name) {
    const std::string text =
        TRY_STEP("archive", read_in_root(directory_, "manifest.json", kMaxManifest));
    struct Entry {
        std::string config;
        std::vector<std::string> tags;
        std::vector<std::string> layers;
    };
    std::vector<Entry> entries;
    try {
        for (const json& value : json::parse(text)) {
            Entry entry;
            entry.config = value.at("Config").get<std::string>();
            entry.layers = value.at("Layers").get<std::vector<std::string>>();
            if (const auto it = value.find("RepoTags"); it != value.end() && it->is_array()) {
                entry.tags = it->get<std::vector<std::string>>();
            }
            entries.push_back(std::move(entry));
        }
    } catch (const json::exception& e) {
        return invalid_argument(std::string("manifest.json: ") + e.what());
    }
    if (!name.empty() && entries.size() > 1) {
        return invalid_argument("manifest.json: " + std::to_string(entries.size()) +
                                " images, but one name");
    }
    std::vector<LoadedImage> loaded;
    for (const Entry& entry : entries) {
        const std::string config =
            TRY_STEP("archive: \"" + entry.config + "\"",
                     read_in_root(directory_, TRY(clean_member_name(entry.config)), kMaxConfig));
        const auto names = name.empty() ? entry.tags : std::vector<std::string>{name};
        loaded.push_back(TRY(
            add(config, entry.layers, std::vector<std::string>(entry.layers.size()), names, "")));
    }
    return loaded;
}

Result<std::vector<LoadedImage>> Archive::load(const std::string& name) {
    // What docker save writes today is both; as a layout it also has digests.
    if (access((directory_ + "/index.json").c_str(), F_OK) == 0) {
        return load_layout(name);
    }
    if (access((directory_ + "/manifest.json").c_str(), F_OK) == 0) {
        return load_docker(name);
    }
    return invalid_argument(
        "neither an OCI layout (index.json) nor a docker archive (manifest.json)");
}

}  // namespace

Result<std::vector<LoadedImage>> load_archive(ImageStore& store, const std::string& path,
                                              const std::string& name) {
    const std::string step = "load " + path;
    Result<std::vector<LoadedImage>> loaded = std::vector<LoadedImage>();
    {
        const FileLock hold = TRY_STEP(step, store.hold());
        const auto work = TRY_STEP(step, store.workspace());
        const auto reader = TRY_STEP(step, BlobReader::open(path));
        TRY_STEP(step, unpack_layer(*reader, work->path()));
        loaded = Archive(store, work->path()).load(name);
    }
    if (!loaded.ok()) {
        (void)store.collect();
        return loaded.error().within(step);
    }
    return loaded;
}

}  // namespace moat::cri
