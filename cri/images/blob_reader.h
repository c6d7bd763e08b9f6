#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "cri/base/error.h"

namespace moat::cri {

/// Reads a layer's blob from a file, whatever it is packed with (gzip of several members, zstd of
/// several frames, nothing), and sums what it reads on both sides of the unpacking.
class BlobReader {
  public:
    virtual ~BlobReader() = default;
    static Result<std::unique_ptr<BlobReader>> open(const std::string& path);
    /// The next unpacked bytes, valid until the next call; empty at the end. EBADMSG for a blob
    /// that is damaged or cut off.
    virtual Result<std::string_view> next() = 0;
    /// After the end: digest of the file, and of what came out of it (the layer's diff id).
    virtual std::string blob_digest() = 0;
    virtual std::string diff_id() = 0;
};

}  // namespace moat::cri
