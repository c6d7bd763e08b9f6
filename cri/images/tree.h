#pragma once

#include <string>
#include <vector>

#include "cri/images/layer.h"

namespace moat::cri {

/// Blocks and inodes of a tree, an inode with several names counted once:
/// runtime/util/tree_usage.h.
Result<Usage> tree_usage(int directory_fd);

/// rm -rf of one entry of an open directory; follows no link.
Status remove_at(int directory_fd, const std::string& name);

struct StackedLayer {
    std::string directory;  ///< the unpacked files
    LayerChanges changes;
};

/// Puts layers, the bottom one first, together in the empty directory `directory`: directories are
/// made anew, everything else is a hard link to the layer's own file. Returns what that costs: the
/// directories.
///
/// Why links and not an overlay mount: nothing is mounted that a killed moatd, a reboot or another
/// mount namespace could leave behind or lose; the gofer walks one plain tree; and the inodes stay
/// the layers' own, so that images which share a layer share its page cache. It takes one link(2)
/// per file of an image, once per node.
Result<Usage> stack_layers(const std::vector<StackedLayer>& layers, const std::string& directory);

}  // namespace moat::cri
