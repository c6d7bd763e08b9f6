#pragma once

#include <vector>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/file.h"

namespace moat::kernel {

/// Descriptions that travel in a message (SCM_RIGHTS). Counted for the whole sandbox: sockets that
/// are sent over each other and then closed keep each other alive until the sandbox ends (Linux has
/// a collector for that, net/unix/garbage.c; here the count bounds what can be lost).
///
/// Letting go of them never recurses: a socket whose queue holds a socket whose queue holds ... is
/// taken apart one after the other.
class InFlightFiles {
  public:
    /// Most descriptions under way in the sandbox.
    static constexpr size_t kLimit = 16384;

    InFlightFiles() = default;
    InFlightFiles(InFlightFiles&& other) noexcept : files_(std::move(other.files_)) {
        other.files_.clear();
    }
    InFlightFiles& operator=(InFlightFiles&& other) noexcept;
    ~InFlightFiles() { drop(); }

    /// ETOOMANYREFS.
    static Result<InFlightFiles> send(std::vector<RefPtr<File>> files);
    bool empty() const { return files_.empty(); }
    /// They have arrived.
    std::vector<RefPtr<File>> receive();
    /// For MSG_PEEK.
    std::vector<RefPtr<File>> copy() const { return files_; }

  private:
    void drop();
    std::vector<RefPtr<File>> files_;
};

}  // namespace moat::kernel
