#include "cri/containers/image_volumes.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "api.pb.h"
#include "cri/base/rooted.h"
#include "cri/images/image_store.h"

namespace moat::cri {

namespace {

bool is_image_mount(const api::Mount& mount) {
    return mount.has_image() && !mount.image().image().empty();
}

std::string place_of(const api::Mount& mount) {
    return "mounts: \"" + mount.container_path() + "\": image \"" + mount.image().image() + "\"";
}

Result<ImageRecord> image_of(ImageStore& images, const api::Mount& mount) {
    const std::string& name =
        mount.image().image_ref().empty() ? mount.image().image() : mount.image().image_ref();
    auto image = TRY_STEP(place_of(mount), images.find(name));
    if (!image) {
        return not_found(place_of(mount) + ": not on this node");
    }
    return std::move(*image);
}

/// `sub_path` of the image, links followed inside of it, as a path of the host.
Result<std::string> source(const std::string& root_path, const std::string& sub_path) {
    const ScopedFd root(open(root_path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root) {
        return host_error(Error::from_errno(errno, "open " + root_path), "image store");
    }
    const auto fd = open_in_root(root.get(), sub_path, O_PATH);
    if (!fd.ok()) {
        return invalid_argument("image_sub_path \"" + sub_path + "\": " + fd.error().message());
    }
    char resolved[PATH_MAX];
    const std::string link = "/proc/self/fd/" + std::to_string(fd->get());
    const ssize_t n = readlink(link.c_str(), resolved, sizeof(resolved));
    if (n <= 0 || static_cast<size_t>(n) == sizeof(resolved)) {
        return internal_error("image_sub_path \"" + sub_path + "\": cannot be resolved");
    }
    return std::string(resolved, static_cast<size_t>(n));
}

}  // namespace

Status check_image_mount(const api::Mount& mount) {
    const std::string where = place_of(mount);
    if (!mount.readonly()) {
        return invalid_argument(where + ": readonly: an image volume cannot be written to");
    }
    if (!mount.host_path().empty()) {
        return invalid_argument(where + ": host_path: set as well: \"" + mount.host_path() + "\"");
    }
    if (mount.propagation() != api::PROPAGATION_PRIVATE) {
        return invalid_argument(where + ": propagation: an image volume has none");
    }
    if (mount.uidmappings_size() != 0 || mount.gidmappings_size() != 0 ||
        mount.mount_options_size() != 0) {
        return not_supported(where + ": id mappings and mount_options are not built yet");
    }
    const std::string& sub_path = mount.image_sub_path();
    if (!sub_path.empty() &&
        (sub_path.front() == '/' || ("/" + sub_path + "/").find("/../") != std::string::npos)) {
        return invalid_argument(where + ": image_sub_path: not a path below the image's root: \"" +
                                sub_path + "\"");
    }
    return {};
}

Status resolve_image_volumes(ImageStore& images, api::ContainerConfig& config) {
    for (api::Mount& mount : *config.mutable_mounts()) {
        if (is_image_mount(mount)) {
            // What a client says of it is no more than its opinion.
            mount.mutable_image()->clear_image_ref();
            const ImageRecord image = TRY(image_of(images, mount));
            mount.mutable_image()->set_image_ref(image.id);
        }
    }
    return {};
}

Result<api::ContainerConfig> place_image_volumes(ImageStore& images,
                                                 const api::ContainerConfig& config) {
    api::ContainerConfig placed = config;
    for (api::Mount& mount : *placed.mutable_mounts()) {
        if (is_image_mount(mount)) {
            const ImageRecord image = TRY(image_of(images, mount));
            mount.set_host_path(TRY_STEP(
                place_of(mount), source(images.root_path(image.chain_id), mount.image_sub_path())));
            mount.clear_image();
            mount.clear_image_sub_path();
            mount.set_recursive_read_only(false);  // nothing is mounted below an image's root
        }
    }
    return placed;
}

}  // namespace moat::cri
