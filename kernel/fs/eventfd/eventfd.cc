#include "kernel/fs/eventfd/eventfd.h"

#include <fcntl.h>

#include "kernel/fs/pipe/anonymous.h"

namespace moat::kernel {

EventFile::EventFile(uint64_t initial, Mode mode, uint32_t flags)
    : File(O_RDWR | flags), mode_(mode), count_(initial) {}

Result<size_t> EventFile::read(Task&, IoBuffer& destination) {
    if (destination.remaining() < sizeof(uint64_t)) {
        return Errno(EINVAL);
    }
    MutexLock lock(mu_);
    if (count_ == 0) {
        return Errno(EAGAIN);
    }
    const uint64_t value = mode_ == Mode::kSemaphore ? 1 : count_;
    count_ -= value;
    lock.unlock();
    queue_.notify(EPOLLOUT);
    // As on Linux, a fault loses what was taken.
    if (TRY(destination.put(&value, sizeof value)) != sizeof value) {
        return Errno(EFAULT);
    }
    return sizeof value;
}

Result<size_t> EventFile::write(Task&, IoBuffer& source) {
    if (source.remaining() < sizeof(uint64_t)) {
        return Errno(EINVAL);
    }
    // From a copy: a write that has to wait is tried again with the cursor where it was.
    IoBuffer cursor = source;
    uint64_t value = 0;
    if (TRY(cursor.take(&value, sizeof value)) != sizeof value) {
        return Errno(EFAULT);
    }
    if (value == UINT64_MAX) {
        return Errno(EINVAL);
    }
    MutexLock lock(mu_);
    if (value > kMax - count_) {
        return Errno(EAGAIN);
    }
    count_ += value;
    lock.unlock();
    source = std::move(cursor);
    source.truncate(0);  // what follows the eight bytes is not looked at
    queue_.notify(EPOLLIN);
    return sizeof value;
}

Result<struct stat> EventFile::stat(Task&) { return anonymous_stat(1, 0600, 0, 0); }

PollMask EventFile::poll() {
    MutexLock lock(mu_);
    return (count_ > 0 ? EPOLLIN : 0u) | (count_ < kMax ? EPOLLOUT : 0u);
}

uint64_t EventFile::count() {
    MutexLock lock(mu_);
    return count_;
}

}  // namespace moat::kernel
