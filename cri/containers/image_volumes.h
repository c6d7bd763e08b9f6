#pragma once

#include <string>
#include <vector>

#include "cri/base/error.h"

namespace runtime::v1 {
class ContainerConfig;
class Mount;
}  // namespace runtime::v1

namespace moat::cri {

namespace api = ::runtime::v1;
class ImageStore;

// Image volumes (KEP-4639): a mount whose source is another image's root, or a directory or file of
// it, read-only. The image's files are shared by all that use it, so nobody may write to them.

/// What can be said of the request alone. EINVAL: not read-only, a host path as well, a sub-path
/// that is absolute or leads out.
Status check_image_mount(const api::Mount& mount);

/// Writes into each image mount's `image.image_ref` which image its name stands for now: what
/// ContainerStatus tells, and what stays if the name is given to another image. ENOENT: the image
/// is not on this node. The caller holds the store; the container's row then keeps these images'
/// files.
Status resolve_image_volumes(ImageStore& images, api::ContainerConfig& config);

/// The request with a host path in place of each resolved image mount. EINVAL: the sub-path is not
/// in the image.
Result<api::ContainerConfig> place_image_volumes(ImageStore& images,
                                                 const api::ContainerConfig& config);

}  // namespace moat::cri
