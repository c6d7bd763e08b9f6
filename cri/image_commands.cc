#include "cri/image_commands.h"

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "cri/images/archive.h"
#include "cri/images/save.h"
#include "cri/server/node.h"

namespace moat::cri {

namespace {

int fail(const Error& error) {
    std::fprintf(stderr, "moatd: %s\n", error.message().c_str());
    return 1;
}

void print(const ImageRecord& image) {
    std::printf("%s %llu", image.id.c_str(), static_cast<unsigned long long>(image.size));
    for (const auto* names : {&image.tags, &image.digests}) {
        for (const std::string& name : *names) {
            std::printf(" %s", name.c_str());
        }
    }
    std::printf("\n");
}

Status load(ImageStore& images, const std::string& archive, const std::string& name) {
    for (const LoadedImage& image : TRY(load_archive(images, archive, name))) {
        std::printf("%s", image.id.c_str());
        for (const std::string& tag : image.names) {
            std::printf(" %s", tag.c_str());
        }
        std::printf("\n");
    }
    return {};
}

/// To a file, which is there whole or not at all, or to standard output.
Status save(ImageStore& images, const std::vector<std::string>& names, const std::string& path) {
    if (path.empty()) {
        if (isatty(STDOUT_FILENO) != 0) {
            return invalid_argument("save: to a terminal? Say --output FILE or redirect it");
        }
        return save_images(images, names, STDOUT_FILENO);
    }
    const std::string temporary = path + ".new";
    const ScopedFd fd(
        open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (!fd) {
        return Error::from_errno(errno, "create " + temporary);
    }
    Status saved = save_images(images, names, fd.get());
    if (saved.ok() && (fsync(fd.get()) != 0 || rename(temporary.c_str(), path.c_str()) != 0)) {
        saved = Error::from_errno(errno, "write " + path);
    }
    if (!saved.ok()) {
        unlink(temporary.c_str());
    }
    return saved;
}

Status list(ImageStore& images) {
    for (const ImageRecord& image : TRY(images.list())) {
        print(image);
    }
    return {};
}

Status pull(ImageStore& images, const Settings& settings, const std::string& name,
            const std::string& user) {
    RegistryAuth auth;
    if (!user.empty()) {
        // Not an argument: those of all processes are for everybody to read.
        const char* password = std::getenv("MOAT_REGISTRY_PASSWORD");
        if (password == nullptr) {
            return invalid_argument("--user: the password is expected in MOAT_REGISTRY_PASSWORD");
        }
        auth.username = user;
        auth.password = password;
    }
    ImagePuller puller(
        images, RegistryHosts(settings.registry_config_dir, settings.registry_mirrors),
        PullLimits{.stall_seconds = settings.pull_stall_seconds,
                   .partial_bytes = static_cast<uint64_t>(settings.max_partial_bytes),
                   .layer_bytes = static_cast<uint64_t>(settings.max_layer_bytes)});
    std::printf("%s\n", TRY(puller.pull(name, auth, [] { return false; })).c_str());
    return {};
}

Status remove(ImageStore& images, const std::vector<std::string>& names) {
    for (const std::string& name : names) {
        const auto image = TRY(images.find(name));
        if (!image) {
            return not_found("image \"" + name + "\": not here");
        }
        TRY(images.remove(image->id));
        std::printf("%s\n", image->id.c_str());
    }
    return {};
}

/// Gives an image one tag more, which another may lose.
Status tag(ImageAccess& access, const std::string& name, const std::string& target) {
    const Reference wanted = TRY(parse_reference(target));
    if (!wanted.digest.empty()) {
        return invalid_argument("tag \"" + target + "\": a name without a digest is needed");
    }
    const FileLock hold = TRY(access.images->hold());
    const auto image = TRY(access.images->find(name));
    if (!image) {
        return not_found("image \"" + name + "\": not here");
    }
    return access.database->run(
        "INSERT OR REPLACE INTO image_names (name, kind, image_id) VALUES (?,?,?)", wanted.tagged(),
        0, image->id);
}

/// Removes what is not pinned and what no container has, as its root or as a volume.
Status prune(ImageAccess& access, const Settings& settings) {
    std::set<std::string> kept;
    for (const std::string& name : settings.pinned_images) {
        if (const auto image = TRY(access.images->find(name))) {
            kept.insert(image->id);
        }
    }
    TRY(access.database->query(
        "SELECT id FROM images WHERE id IN (SELECT image_id FROM containers) OR chain_id IN"
        " (SELECT chain_id FROM container_volumes)",
        [&](const Row& row) { kept.insert(row.text(0)); }));
    for (const ImageRecord& image : TRY(access.images->list())) {
        if (!kept.contains(image.id)) {
            TRY(access.images->remove(image.id));
            std::printf("%s\n", image.id.c_str());
        }
    }
    return access.images->collect();
}

}  // namespace

ImageCommands::ImageCommands(CLI::App& app) {
    image_ =
        app.add_subcommand("image", "works on the images of --root, also beside a running moatd");
    image_->require_subcommand(1);
    load_ = image_->add_subcommand("load", "load an OCI layout or a docker archive");
    load_->add_option("ARCHIVE", archive_, "a tar, plain or packed with gzip or zstd")->required();
    load_->add_option("--name", name_, "the image's name, instead of the archive's");
    save_ =
        image_->add_subcommand("save", "write images as an OCI layout that load and others read");
    save_->add_option("IMAGE", names_, "names or ids")->required();
    save_->add_option("-o,--output", archive_, "a file; without it, standard output");
    list_ = image_->add_subcommand("list", "id, size and names of all images");
    pull_ = image_->add_subcommand("pull", "pull an image; prints its id");
    pull_->add_option("NAME", name_, "HOST/REPOSITORY:TAG or @DIGEST")->required();
    pull_->add_option("--user", user_, "whose password is in MOAT_REGISTRY_PASSWORD");
    tag_ = image_->add_subcommand("tag", "give an image one name more");
    tag_->add_option("IMAGE", name_, "a name or an id")->required();
    tag_->add_option("NAME", target_, "HOST/REPOSITORY:TAG")->required();
    remove_ = image_->add_subcommand("remove", "remove images with all their names");
    remove_->add_option("IMAGE", names_, "names or ids")->required();
    prune_ = image_->add_subcommand("prune",
                                    "remove images that no container has and that are not pinned");
    for (CLI::App* command : {image_, load_, save_, list_, pull_, tag_, remove_, prune_}) {
        command->fallthrough();  // moatd's own options may stand behind the command, too
    }
}

int ImageCommands::run(const Settings& settings) {
    auto access = open_images(settings);
    if (!access.ok()) {
        return fail(access.error());
    }
    ImageStore& images = *access->images;
    const Status done = load_->parsed()     ? load(images, archive_, name_)
                        : save_->parsed()   ? save(images, names_, archive_)
                        : list_->parsed()   ? list(images)
                        : pull_->parsed()   ? pull(images, settings, name_, user_)
                        : tag_->parsed()    ? tag(*access, name_, target_)
                        : remove_->parsed() ? remove(images, names_)
                                            : prune(*access, settings);
    if (const Status settled = images.settle(); done.ok() && !settled.ok()) {
        return fail(settled.error());
    }
    return done.ok() ? 0 : fail(done.error());
}

}  // namespace moat::cri
