#pragma once

#include <string>
#include <vector>

#include "cri/images/image_store.h"

namespace moat::cri {

struct LoadedImage {
    std::string id;
    std::vector<std::string> names;
};

/// Loads what a tar (packed or not) of an OCI layout or of `docker save` has. `name`, if not empty,
/// is given to the image instead of the archive's own names; the archive may then only have one.
/// EINVAL names the member and the field that is wrong.
Result<std::vector<LoadedImage>> load_archive(ImageStore& store, const std::string& path,
                                              const std::string& name);

}  // namespace moat::cri
