#include "cri/store/reserve.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "kernel/base/scoped_fd.h"

namespace moat::cri {

void Reserve::take() {
    if (held_) {
        return;
    }
    const ScopedFd fd(open(path_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
    struct stat st {};
    if (!fd || fstat(fd.get(), &st) != 0) {
        return;
    }
    if (st.st_blocks * 512 >= kReserveBytes) {
        held_ = true;  // of the last moatd
        return;
    }
    lost_ = lost_ || st.st_size != 0;
    struct statvfs room {};
    if (fstatvfs(fd.get(), &room) != 0 ||
        room.f_bavail * room.f_frsize < 3 * static_cast<unsigned long>(kReserveBytes)) {
        return;
    }
    if (posix_fallocate(fd.get(), 0, kReserveBytes) != 0) {
        (void)!ftruncate(fd.get(), lost_ ? 1 : 0);
        return;
    }
    held_ = true;
    lost_ = false;
}

bool Reserve::lost() {
    take();
    return lost_;
}

bool Reserve::give_up() {
    if (!held_) {
        return false;
    }
    held_ = false;
    lost_ = true;
    // A length of 1 is for the next moatd to know.
    if (truncate(path_.c_str(), 0) != 0 || truncate(path_.c_str(), 1) != 0) {
        return false;
    }
    spdlog::error(
        "database: its file system is full; the reserve of {} MiB beside it is given up "
        "so that pods and images can be removed",
        kReserveBytes >> 20);
    return true;
}

}  // namespace moat::cri
