#pragma once

#include <stdint.h>

#include "runtime/error.h"

namespace moat::runtime {

struct TreeUsage {
    uint64_t bytes = 0;  ///< of allocated blocks, holes not counted
    uint64_t inodes = 0;
};

/// What an open directory and all below it on the same file system take, an inode with several
/// names once. Others may write there meanwhile, guests that are hostile too: however deep a tree
/// is, it costs a bounded number of descriptors; what is removed meanwhile is not counted, what is
/// moved may not be. Fails if a directory that is there cannot be read.
Result<TreeUsage> tree_usage(int directory);

}  // namespace moat::runtime
