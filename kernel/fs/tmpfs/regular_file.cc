#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "kernel/fs/dentry.h"
#include "kernel/fs/tmpfs/tmpfs.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr int64_t kMaxFileSize = INT64_MAX - (1 << 20);
constexpr uint32_t kAllSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE |
                               F_SEAL_FUTURE_WRITE | 0x20 /* F_SEAL_EXEC */;

std::atomic<uint32_t> memfd_count{0};

/// How large a file may get in the heap. The host allows the sentry 20,000 descriptors: when many
/// are taken, only large files get one.
int64_t largest_small_file() {
    const uint32_t taken = memfd_count.load(std::memory_order_relaxed);
    if (taken < 8000) {
        return 16 << 10;
    }
    return taken < 14000 ? 256 << 10 : INT64_MAX;
}

uint64_t pages_of(int64_t bytes) { return page_up(static_cast<uint64_t>(bytes)) / kPageSize; }

class TmpfsFile final : public RegularFile {
  public:
    TmpfsFile(RefPtr<TmpfsRegular> inode, uint32_t flags)
        : RegularFile(flags), inode_(std::move(inode)) {}

    Result<size_t> pread(Task&, IoBuffer& destination, int64_t offset) override {
        inode_->touch_accessed();
        return inode_->read_at(destination, offset);
    }
    Result<size_t> pwrite(Task& task, IoBuffer& source, int64_t offset) override {
        int64_t end = 0;
        if ((flags() & O_APPEND) != 0) {
            return append(task, source, end);
        }
        TRY(limit_file_size(task, source, offset));
        return inode_->write_at(source, offset, end);
    }
    Status truncate(Task&, int64_t size) override {
        TRY(inode_->resize(size));
        inode_->touch_modified();
        return {};
    }
    Status allocate(Task&, int mode, int64_t offset, int64_t size) override {
        return inode_->allocate(mode, offset, size);
    }
    Status sync(Task&, bool) override { return {}; }
    Result<MapSource> map_source(Task&, int prot, bool shared) override {
        const bool writable = shared && (prot & PROT_WRITE) != 0;
        if (writable && (inode_->seals() & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) {
            return Errno(EPERM);
        }
        return MapSource{TRY(inode_->host_fd()), 0,
                         (flags() & O_ACCMODE) == O_RDWR &&
                             (inode_->seals() & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) == 0};
    }
    Result<int64_t> fcntl(Task&, int command, uint64_t argument) override {
        if (!path() || !path().dentry()->name().starts_with("memfd:")) {
            return Errno(EINVAL);
        }
        switch (command) {
            case F_GET_SEALS:
                return static_cast<int64_t>(inode_->seals());
            case F_ADD_SEALS:
                if (!writable()) {
                    return Errno(EPERM);
                }
                TRY(inode_->add_seals(static_cast<uint32_t>(argument)));
                return 0;
            default:
                return Errno(EINVAL);
        }
    }

  private:
    Result<int64_t> size(Task&) override { return inode_->size(); }
    Result<size_t> append(Task& task, IoBuffer& source, int64_t& end) override {
        TRY(limit_file_size(task, source, inode_->size()));
        return inode_->write_at(source, -1, end);
    }
    Result<int64_t> seek_data(Task&, int64_t offset, int whence) override {
        return inode_->seek_data(offset, whence);
    }

    const RefPtr<TmpfsRegular> inode_;
};

}  // namespace

TmpfsRegular::TmpfsRegular(TmpfsFileSystem& fs, const NewInode& what)
    : TmpfsInode(fs, what), seals_(F_SEAL_SEAL) {}

TmpfsRegular::~TmpfsRegular() {
    tmpfs().give_pages(charged_);
    if (memfd_.valid()) {
        memfd_count.fetch_sub(1, std::memory_order_relaxed);
    }
}

Result<RefPtr<File>> TmpfsRegular::open(Task&, const Path&, uint32_t flags) {
    return RefPtr<File>(make_ref<TmpfsFile>(RefPtr<TmpfsRegular>(this), flags));
}

uint64_t TmpfsRegular::blocks_now() {
    MutexLock lock(mu_);
    true_up_locked();
    return charged_ * (kPageSize / 512);
}

Result<size_t> TmpfsRegular::read_at(IoBuffer& destination, int64_t offset) {
    if (offset < 0) {
        return Errno(EINVAL);
    }
    int fd = host_fd_.load(std::memory_order_acquire);
    if (fd < 0) {
        MutexLock lock(mu_);
        if (!is_host_locked()) {
            if (offset >= size()) {
                return 0;
            }
            return destination.put(small_.data() + offset,
                                   small_.size() - static_cast<size_t>(offset));
        }
        fd = memfd_.get();
    }
    const int64_t end = size();
    if (offset >= end) {
        return 0;
    }
    const size_t n = std::min(destination.remaining(), static_cast<size_t>(end - offset));
    return destination.put_from_host(fd, n, offset);
}

// Pages for [offset, offset + size), as far as they are not charged yet: the number of bytes from
// `offset` on that may be written.
Result<uint64_t> TmpfsRegular::reserve_locked(int64_t offset, uint64_t size) {
    const uint64_t begin = page_down(static_cast<uint64_t>(offset));
    const uint64_t end = page_up(static_cast<uint64_t>(offset) + size);
    const uint64_t known = page_up(static_cast<uint64_t>(dense_end_));
    const uint64_t from = std::max(begin, std::min(known, end));
    const uint64_t wanted = (end - from) / kPageSize;
    const uint64_t granted = wanted == 0 ? 0 : tmpfs().take_pages(wanted);
    charged_ += granted;
    if (granted == wanted) {
        return size;
    }
    const uint64_t writable_end = from + granted * kPageSize;
    if (writable_end <= static_cast<uint64_t>(offset)) {
        return Errno(ENOSPC);
    }
    return writable_end - static_cast<uint64_t>(offset);
}

// What reserve_locked() took in doubt (holes, pages that were there already) is set right from the
// memfd's own count.
void TmpfsRegular::true_up_locked() {
    uint64_t pages = pages_of(static_cast<int64_t>(small_.size()));
    if (is_host_locked()) {
        struct stat st;
        if (fstat(memfd_.get(), &st) != 0) {
            return;
        }
        pages = static_cast<uint64_t>(st.st_blocks) * 512 / kPageSize;
    }
    if (pages > charged_) {
        tmpfs().pages_.fetch_add(pages - charged_, std::memory_order_relaxed);
    } else {
        tmpfs().give_pages(charged_ - pages);
    }
    charged_ = pages;
}

Status TmpfsRegular::migrate_locked() {
    if (is_host_locked()) {
        return {};
    }
    constexpr unsigned kExec = 0x10;  // MFD_EXEC of Linux 6.3, which older ones refuse
    int fd = memfd_create("moat-tmpfs", MFD_CLOEXEC | MFD_ALLOW_SEALING | kExec);
    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create("moat-tmpfs", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    }
    if (fd < 0) {
        return Errno(errno == EMFILE || errno == ENFILE ? ENOSPC : errno);
    }
    ScopedFd made(fd);
    for (size_t done = 0; done < small_.size();) {
        const ssize_t n =
            pwrite(fd, small_.data() + done, small_.size() - done, static_cast<off_t>(done));
        if (n <= 0) {
            return Errno(n < 0 ? errno : ENOSPC);
        }
        done += static_cast<size_t>(n);
    }
    dense_end_ = static_cast<int64_t>(small_.size());
    std::vector<char>().swap(small_);
    memfd_ = std::move(made);
    memfd_count.fetch_add(1, std::memory_order_relaxed);
    host_fd_.store(fd, std::memory_order_release);
    return {};
}

Result<size_t> TmpfsRegular::write_small_locked(IoBuffer& source, int64_t offset, size_t n) {
    const auto begin = static_cast<size_t>(offset);
    const size_t old_size = small_.size();
    dense_end_ = static_cast<int64_t>(old_size);
    // A gap is charged too: it lies in the heap as zeros.
    const size_t first = std::min(begin, old_size);
    const uint64_t allowed = TRY(reserve_locked(static_cast<int64_t>(first), begin + n - first));
    if (first + allowed <= begin) {
        true_up_locked();
        return Errno(ENOSPC);
    }
    n = first + allowed - begin < n ? first + allowed - begin : n;
    if (begin + n > small_.size()) {
        small_.resize(begin + n);
    }
    const auto taken = source.take(small_.data() + begin, n);
    const size_t done = taken.ok() ? *taken : 0;
    if (begin + n > old_size) {
        small_.resize(done == 0 ? old_size : std::max(old_size, begin + done));
    }
    size_.store(static_cast<int64_t>(small_.size()), std::memory_order_release);
    true_up_locked();
    return taken;
}

Result<size_t> TmpfsRegular::write_host_locked(IoBuffer& source, int64_t offset, size_t n) {
    const uint64_t allowed = TRY(reserve_locked(offset, n));
    n = std::min<uint64_t>(n, allowed);
    const auto taken = source.take_to_host(memfd_.get(), n, offset);
    const int64_t end = offset + static_cast<int64_t>(taken.ok() ? *taken : 0);
    if (taken.ok() && end > size()) {
        size_.store(end, std::memory_order_release);
    }
    const bool dense = offset <= static_cast<int64_t>(page_up(static_cast<uint64_t>(dense_end_)));
    if (dense && taken.ok() && *taken == n) {
        dense_end_ = std::max(dense_end_, end);
    } else {
        true_up_locked();
    }
    return taken;
}

Result<size_t> TmpfsRegular::write_at(IoBuffer& source, int64_t offset, int64_t& end) {
    size_t done = 0;
    {
        MutexLock lock(mu_);
        if (offset < 0) {
            offset = size();
        }
        size_t n = source.remaining();
        if (n == 0) {
            end = offset;
            return 0;
        }
        if (offset >= kMaxFileSize) {
            return Errno(EFBIG);
        }
        n = std::min(n, static_cast<size_t>(kMaxFileSize - offset));
        const int64_t new_end = offset + static_cast<int64_t>(n);
        if ((seals_ & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0 ||
            ((seals_ & F_SEAL_GROW) != 0 && new_end > size())) {
            return Errno(EPERM);
        }
        if (!is_host_locked() && new_end > largest_small_file()) {
            TRY(migrate_locked());
        }
        done = TRY(is_host_locked() ? write_host_locked(source, offset, n)
                                    : write_small_locked(source, offset, n));
        end = offset + static_cast<int64_t>(done);
    }
    touch_modified();
    return done;
}

Status TmpfsRegular::resize(int64_t new_size) {
    if (new_size < 0) {
        return Errno(EINVAL);
    }
    if (new_size > kMaxFileSize) {
        return Errno(EFBIG);
    }
    {
        MutexLock lock(mu_);
        if (((seals_ & F_SEAL_SHRINK) != 0 && new_size < size()) ||
            ((seals_ & F_SEAL_GROW) != 0 && new_size > size())) {
            return Errno(EPERM);
        }
        if (!is_host_locked() && new_size > largest_small_file()) {
            TRY(migrate_locked());
        }
        if (is_host_locked()) {
            if (ftruncate(memfd_.get(), new_size) != 0) {
                return Errno(errno);
            }
            dense_end_ = std::min(dense_end_, new_size);
        } else {
            const uint64_t old_pages = pages_of(static_cast<int64_t>(small_.size()));
            const uint64_t new_pages = pages_of(new_size);
            if (new_pages > old_pages) {
                const uint64_t granted = tmpfs().take_pages(new_pages - old_pages);
                charged_ += granted;
                if (granted < new_pages - old_pages) {
                    true_up_locked();
                    return Errno(ENOSPC);
                }
            }
            small_.resize(static_cast<size_t>(new_size));
            if (small_.capacity() > 2 * small_.size()) {
                small_.shrink_to_fit();
            }
        }
        size_.store(new_size, std::memory_order_release);
        true_up_locked();
    }
    touch_modified();
    return {};
}

Status TmpfsRegular::allocate(int mode, int64_t offset, int64_t length) {
    constexpr int kKnown = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
    const bool punch = (mode & FALLOC_FL_PUNCH_HOLE) != 0;
    const bool zero = (mode & FALLOC_FL_ZERO_RANGE) != 0;
    const bool keep = (mode & FALLOC_FL_KEEP_SIZE) != 0;
    if ((mode & ~kKnown) != 0 || (punch && (zero || !keep))) {
        return Errno(EOPNOTSUPP);
    }
    if (length > kMaxFileSize - offset) {
        return Errno(EFBIG);
    }
    const int64_t end = offset + length;
    {
        MutexLock lock(mu_);
        if (((seals_ & F_SEAL_WRITE) != 0 && (punch || zero)) ||
            ((seals_ & F_SEAL_GROW) != 0 && !keep && end > size())) {
            return Errno(EPERM);
        }
        TRY(migrate_locked());
        if (punch || zero) {
            if (::fallocate(memfd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                            length) != 0) {
                return Errno(errno);
            }
            dense_end_ = std::min(dense_end_, offset);
            true_up_locked();
        }
        if (!punch) {
            if (TRY(reserve_locked(offset, static_cast<uint64_t>(length))) <
                static_cast<uint64_t>(length)) {
                true_up_locked();
                return Errno(ENOSPC);
            }
            if (::fallocate(memfd_.get(), keep ? FALLOC_FL_KEEP_SIZE : 0, offset, length) != 0) {
                const int error = errno;
                true_up_locked();
                return Errno(error);
            }
            if (!keep && end > size()) {
                size_.store(end, std::memory_order_release);
            }
            true_up_locked();
        }
    }
    touch_modified();
    return {};
}

Result<int64_t> TmpfsRegular::seek_data(int64_t offset, int whence) {
    MutexLock lock(mu_);
    if (offset >= size()) {
        return Errno(ENXIO);
    }
    if (!is_host_locked()) {
        return whence == SEEK_DATA ? offset : size();
    }
    // Nobody uses the memfd's own position.
    return host_result(static_cast<int64_t>(lseek(memfd_.get(), offset, whence)));
}

Result<int> TmpfsRegular::host_fd() {
    if (const int fd = host_fd_.load(std::memory_order_acquire); fd >= 0) {
        return fd;
    }
    MutexLock lock(mu_);
    TRY(migrate_locked());
    return memfd_.get();
}

uint32_t TmpfsRegular::seals() {
    MutexLock lock(mu_);
    return seals_;
}

Status TmpfsRegular::add_seals(uint32_t seals) {
    if ((seals & ~kAllSeals) != 0) {
        return Errno(EINVAL);
    }
    MutexLock lock(mu_);
    if ((seals_ & F_SEAL_SEAL) != 0) {
        return Errno(EPERM);
    }
    TRY(migrate_locked());
    // The host's memfd is sealed as well: it alone knows whether a guest has the file mapped
    // writably (EBUSY). F_SEAL_SEAL is ours only, F_SEAL_EXEC is about modes that it does not have.
    const uint32_t for_host =
        seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE);
    if (for_host != 0 && ::fcntl(memfd_.get(), F_ADD_SEALS, for_host) != 0) {
        return Errno(errno);
    }
    seals_ |= seals;
    return {};
}

Status TmpfsRegular::copy_from_host(int fd, int64_t length) {
    MutexLock lock(mu_);
    CHECK(size() == 0);
    if (reserve_locked(0, static_cast<uint64_t>(length)).value_or(0) <
        static_cast<uint64_t>(length)) {
        true_up_locked();
        return Errno(ENOSPC);
    }
    int64_t done = 0;
    if (length <= largest_small_file()) {
        small_.resize(static_cast<size_t>(length));
        while (done < length) {
            const ssize_t n =
                ::pread(fd, small_.data() + done, static_cast<size_t>(length - done), done);
            if (n < 0) {
                return Errno(errno);
            }
            if (n == 0) {
                break;
            }
            done += n;
        }
        small_.resize(static_cast<size_t>(done));
    } else {
        TRY(migrate_locked());
        // Through a buffer: the filter has no call that copies between two descriptors.
        std::vector<char> chunk(256 << 10);
        while (done < length) {
            const ssize_t n = ::pread(fd, chunk.data(), chunk.size(), done);
            if (n < 0) {
                return Errno(errno);
            }
            if (n == 0) {
                break;
            }
            for (ssize_t written = 0; written < n;) {
                const ssize_t w = ::pwrite(memfd_.get(), chunk.data() + written,
                                           static_cast<size_t>(n - written), done + written);
                if (w <= 0) {
                    return Errno(w < 0 ? errno : ENOSPC);
                }
                written += w;
            }
            done += n;
        }
        dense_end_ = done;
    }
    size_.store(done, std::memory_order_release);
    true_up_locked();
    return {};
}

}  // namespace moat::kernel
