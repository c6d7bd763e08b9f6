#pragma once

#include <string>
#include <vector>

#include "cri/base/error.h"
#include "cri/images/image_store.h"

namespace moat::cri {

/// Writes images as one OCI layout in a tar, with docker's manifest.json beside it: what
/// containerd, podman, skopeo, docker and load_archive() read. A reference is a tag (that one is
/// written), a digest or an id (all of its image's tags are). ENOENT: there is no such image.
///
/// The store has no packed layers: each is packed anew, sorted and without compression, so the
/// archive of an image is always the same bytes, but its layers and with them its id are not those
/// of the registry.
Status save_images(ImageStore& store, const std::vector<std::string>& references, int fd);

}  // namespace moat::cri
