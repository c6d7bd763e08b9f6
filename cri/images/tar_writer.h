#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "cri/base/error.h"
#include "cri/base/sha256.h"
#include "cri/images/layer.h"
#include "cri/images/utf8_locale.h"

struct archive;
struct archive_entry;

namespace moat::cri {

/// Writes a tar (pax where ustar cannot say it) to a file descriptor, and sums up what it writes.
/// The same members give the same bytes.
class TarWriter {
  public:
    explicit TarWriter(int fd);
    ~TarWriter();

    /// A regular file with these bytes, of root, mode 0644, time 0.
    Status file(const std::string& name, std::string_view data);
    /// The same with the bytes of an open file.
    Status file(const std::string& name, int fd, int64_t size);
    /// A member made by the caller; `fd` has the bytes of a regular file, else -1.
    Status member(archive_entry* entry, int fd);
    /// The end mark. The sum and the size are of the whole tar then.
    Status finish();
    std::string digest() { return sum_.digest(); }
    int64_t size() const { return size_; }

  private:
    static long write_callback(archive*, void* self, const void* data, size_t size);
    Error failure(const std::string& name);

    const int fd_;
    Utf8Locale locale_;
    archive* archive_;
    Sha256 sum_;
    int64_t size_ = 0;
    int error_ = 0;  ///< errno of a write
};

/// Writes an unpacked layer as a tar again, members sorted by name: whiteouts and links into lower
/// layers of `changes` are back, directories that are only implied are not in it, nor are the
/// device nodes that unpacking left out.
Status write_layer(TarWriter& tar, const std::string& directory, const LayerChanges& changes);

}  // namespace moat::cri
