#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "cri/base/error.h"

namespace moat::cri {

class BlobReader;

/// What of a layer is not a file of its own: how it changes the layers below it.
struct LayerChanges {
    std::vector<std::string> whiteouts;  ///< paths that are removed from below
    std::vector<std::string> opaque;     ///< directories of which nothing from below is left
    std::vector<std::string>
        implied;  ///< directories that are here only because something is in them
    std::vector<std::pair<std::string, std::string>>
        links;  ///< hard links (name, target) into lower layers
};

struct Usage {
    uint64_t bytes = 0;  ///< of disk blocks
    uint64_t inodes = 0;
};

struct UnpackedLayer {
    LayerChanges changes;
    Usage usage;
};

/// What a layer may take, and who is told of its way.
struct UnpackLimits {
    uint64_t bytes = uint64_t{100} << 30;  ///< of the tar
    uint64_t members = 2'000'000;
    std::function<bool()> cancelled;            ///< asked now and then; may be empty
    std::atomic<uint64_t>* unpacked = nullptr;  ///< counts bytes of the tar
};

/// Unpacks the tar that `reader` gives into the empty directory `directory`.
///
/// The tar is hostile. Names are taken apart by us: an empty, too long or ".." component is EINVAL.
/// All directories on the way are opened with RESOLVE_IN_ROOT below `directory`, so that a link of
/// the tar, absolute or not, leads to a place inside it. Device nodes are left out: no guest could
/// use them, and the node's users must not find any. Of extended attributes, user.* and
/// security.capability are kept, 64 KiB of them a file. EFBIG: more than the limits. What is left
/// after an error is the caller's to remove.
Result<UnpackedLayer> unpack_layer(BlobReader& reader, const std::string& directory,
                                   const UnpackLimits& limits = {});

/// The components of a member's name below the root joined by "/", "" for the root itself.
Result<std::string> clean_member_name(const std::string& name);

std::string encode_changes(const LayerChanges& changes);
Result<LayerChanges> decode_changes(const std::string& text);

}  // namespace moat::cri
