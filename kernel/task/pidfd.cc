#include "kernel/task/pidfd.h"

#include <fcntl.h>

namespace moat::kernel {

PidFile::PidFile(RefPtr<ThreadGroup> group, uint32_t flags)
    : File(O_RDWR | flags), group_(std::move(group)) {}

PidFile::~PidFile() = default;

PollMask PidFile::poll() {
    return group_->state() >= ThreadGroup::State::kZombie ? EPOLLIN | EPOLLRDNORM : 0;
}

Result<RefPtr<ThreadGroup>> process_of_pidfd(File& file) {
    auto* const pidfd = dynamic_cast<PidFile*>(&file);
    if (pidfd == nullptr) {
        return Errno(EBADF);
    }
    return pidfd->group_ref();
}

}  // namespace moat::kernel
