#include "cri/base/rooted.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cri/base/files.h"

namespace moat::cri {

Result<ScopedFd> open_in_root(int dir_fd, const std::string& path, int flags, uint32_t mode) {
    open_how how{};
    how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
    how.mode = mode;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
    for (int attempt = 0;; ++attempt) {
        const auto fd = static_cast<int>(
            syscall(SYS_openat2, dir_fd, path.empty() ? "." : path.c_str(), &how, sizeof(how)));
        if (fd >= 0) {
            return ScopedFd(fd);
        }
        // EAGAIN: something on this machine was renamed while ".." was resolved (openat2(2)).
        if (errno != EAGAIN || attempt == 100) {
            return Error::from_errno(errno, "open " + path);
        }
    }
}

Result<std::string> read_in_root(const std::string& root, const std::string& path,
                                 size_t max_bytes) {
    const ScopedFd root_fd(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root_fd) {
        return Error::from_errno(errno, "open " + root);
    }
    // NONBLOCK: an image may have a FIFO there.
    const ScopedFd fd = TRY(open_in_root(root_fd.get(), path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
    struct stat st {};
    if (fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) {
        return Error(EINVAL, path + ": not a regular file");
    }
    return read_fd(fd.get(), max_bytes, path);
}

}  // namespace moat::cri
