#include "kernel/fs/regular_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kernel/task/task.h"
#include "kernel/task/thread_group.h"

namespace moat::kernel {

Status limit_file_size(Task& task, int64_t size) {
    const uint64_t limit = task.rlimit(RLIMIT_FSIZE);
    if (limit == RLIM_INFINITY || static_cast<uint64_t>(size) <= limit) {
        return {};
    }
    (void)send_signal(task, SignalInfo::from_kernel(SIGXFSZ));
    return Errno(EFBIG);
}

Status limit_file_size(Task& task, IoBuffer& source, int64_t offset) {
    const uint64_t limit = task.rlimit(RLIMIT_FSIZE);
    if (limit == RLIM_INFINITY || offset < 0 || source.empty()) {
        return {};
    }
    if (static_cast<uint64_t>(offset) >= limit) {
        (void)send_signal(task, SignalInfo::from_kernel(SIGXFSZ));
        return Errno(EFBIG);
    }
    source.truncate(std::min<uint64_t>(source.remaining(), limit - static_cast<uint64_t>(offset)));
    return {};
}

Result<size_t> RegularFile::read(Task& task, IoBuffer& destination) {
    MutexLock lock(mu_);
    const size_t n = TRY(pread(task, destination, position_));
    position_ += static_cast<int64_t>(n);
    return n;
}

Result<size_t> RegularFile::write(Task& task, IoBuffer& source) {
    MutexLock lock(mu_);
    if ((flags() & O_APPEND) != 0) {
        int64_t end = position_;
        const size_t n = TRY(append(task, source, end));
        position_ = end;
        return n;
    }
    const size_t n = TRY(pwrite(task, source, position_));
    position_ += static_cast<int64_t>(n);
    return n;
}

Result<size_t> RegularFile::write_at_end(Task& task, IoBuffer& source, Position position) {
    MutexLock lock(mu_);
    int64_t end = position_;
    const size_t n = TRY(append(task, source, end));
    if (position == Position::kMoves) {
        position_ = end;
    }
    return n;
}

Result<int64_t> RegularFile::seek(Task& task, int64_t offset, int whence) {
    MutexLock lock(mu_);
    int64_t target = offset;
    switch (whence) {
        case SEEK_SET:
            break;
        case SEEK_CUR:
            if (__builtin_add_overflow(position_, offset, &target)) {
                return Errno(EOVERFLOW);
            }
            break;
        case SEEK_END:
            if (__builtin_add_overflow(TRY(size(task)), offset, &target)) {
                return Errno(EOVERFLOW);
            }
            break;
        case SEEK_DATA:
        case SEEK_HOLE:
            if (offset < 0) {
                return Errno(ENXIO);
            }
            target = TRY(seek_data(task, offset, whence));
            break;
        default:
            return Errno(EINVAL);
    }
    if (target < 0) {
        return Errno(EINVAL);
    }
    position_ = target;
    return target;
}

Result<int64_t> RegularFile::seek_data(Task& task, int64_t offset, int whence) {
    const int64_t end = TRY(size(task));
    if (offset >= end) {
        return Errno(ENXIO);
    }
    return whence == SEEK_DATA ? offset : end;
}

}  // namespace moat::kernel
