#include "kernel/mm/io_buffer.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "kernel/mm/address_space.h"

namespace moat::kernel {

namespace {

/// Bytes moved at once between a host descriptor and a guest's memory.
constexpr size_t kBounce = 64 << 10;

/// A worker's own: handlers do not nest.
char* bounce_buffer() {
    thread_local std::unique_ptr<char[]> buffer(new char[kBounce]);
    return buffer.get();
}

}  // namespace

IoBuffer::IoBuffer() = default;
IoBuffer::IoBuffer(const IoBuffer&) = default;
IoBuffer::IoBuffer(IoBuffer&&) noexcept = default;
IoBuffer& IoBuffer::operator=(const IoBuffer&) = default;
IoBuffer& IoBuffer::operator=(IoBuffer&&) noexcept = default;
IoBuffer::~IoBuffer() = default;

IoBuffer IoBuffer::guest(RefPtr<AddressSpace> mm, GuestAddr address, size_t size) {
    IoBuffer buffer;
    buffer.mm_ = std::move(mm);
    // MAX_RW_COUNT (Linux: include/linux/fs.h): no call moves more.
    size = std::min<size_t>(size, INT_MAX & ~(kPageSize - 1));
    buffer.pieces_.push_back({to_integer(address), size});
    buffer.remaining_ = size;
    return buffer;
}

Result<IoBuffer> IoBuffer::guest_iovec(RefPtr<AddressSpace> mm, UserPtr<const iovec> pieces,
                                       size_t count) {
    if (count > IOV_MAX) {
        return Errno(EINVAL);
    }
    std::vector<iovec> copied(count);
    if (mm->read(copied.data(), pieces.address(), count * sizeof(iovec)) != count * sizeof(iovec)) {
        return Errno(EFAULT);
    }
    IoBuffer buffer;
    buffer.mm_ = std::move(mm);
    const size_t most = INT_MAX & ~(kPageSize - 1);
    for (const iovec& piece : copied) {
        if (static_cast<ssize_t>(piece.iov_len) < 0) {
            return Errno(EINVAL);
        }
        const size_t size = std::min(piece.iov_len, most - buffer.remaining_);
        if (size != 0) {
            buffer.pieces_.push_back({reinterpret_cast<uint64_t>(piece.iov_base), size});
            buffer.remaining_ += size;
        }
    }
    return buffer;
}

IoBuffer IoBuffer::sentry(void* data, size_t size) {
    IoBuffer buffer;
    buffer.pieces_.push_back({reinterpret_cast<uint64_t>(data), size});
    buffer.remaining_ = size;
    return buffer;
}

void IoBuffer::truncate(size_t size) { remaining_ = std::min(remaining_, size); }

size_t IoBuffer::skip_rest() {
    const size_t skipped = remaining_;
    transferred_ += skipped;
    remaining_ = 0;
    return skipped;
}

// `copy(address, done, n)` moves n bytes at `address`, the buffer's next, and returns how many.
template <typename Copy>
Result<size_t> IoBuffer::transfer(size_t size, Copy copy) {
    size = std::min(size, remaining_);
    size_t done = 0;
    while (done < size) {
        const Piece& piece = pieces_[index_];
        const size_t n = std::min(size - done, piece.size - offset_);
        const size_t moved = n == 0 ? 0 : copy(piece.address + offset_, done, n);
        done += moved;
        offset_ += moved;
        remaining_ -= moved;
        transferred_ += moved;
        if (moved < n) {
            if (done == 0) {
                return Errno(EFAULT);
            }
            break;
        }
        if (offset_ == piece.size) {
            index_++;
            offset_ = 0;
        }
    }
    return done;
}

Result<size_t> IoBuffer::put(const void* source, size_t size) {
    return transfer(size, [&](uint64_t address, size_t done, size_t n) -> size_t {
        const char* from = static_cast<const char*>(source) + done;
        if (mm_) {
            return mm_->write(GuestAddr{address}, from, n);
        }
        memcpy(reinterpret_cast<void*>(address), from, n);
        return n;
    });
}

Result<size_t> IoBuffer::take(void* destination, size_t size) {
    return transfer(size, [&](uint64_t address, size_t done, size_t n) -> size_t {
        char* to = static_cast<char*>(destination) + done;
        if (mm_) {
            return mm_->read(to, GuestAddr{address}, n);
        }
        memcpy(to, reinterpret_cast<const void*>(address), n);
        return n;
    });
}

Result<size_t> IoBuffer::put_zeros(size_t size) {
    size = std::min(size, remaining_);
    char* zeros = bounce_buffer();
    memset(zeros, 0, std::min(size, kBounce));
    size_t done = 0;
    while (done < size) {
        const auto n = put(zeros, std::min(size - done, kBounce));
        if (!n.ok()) {
            if (done == 0) {
                return n.error();
            }
            break;
        }
        done += *n;
        if (*n == 0) {
            break;
        }
    }
    return done;
}

Result<size_t> IoBuffer::put_from_host(int fd, size_t size, int64_t offset) {
    size = std::min(size, remaining_);
    size_t done = 0;
    while (done < size) {
        char* bounce = bounce_buffer();
        const size_t want = std::min(size - done, kBounce);
        const ssize_t got = offset < 0
                                ? ::read(fd, bounce, want)
                                : ::pread(fd, bounce, want, offset + static_cast<int64_t>(done));
        if (got < 0) {
            if (done == 0) {
                return Errno(errno);
            }
            break;
        }
        if (got == 0) {
            break;
        }
        const auto put_result = put(bounce, static_cast<size_t>(got));
        if (!put_result.ok()) {
            if (done == 0) {
                return put_result.error();
            }
            break;
        }
        done += *put_result;
        if (*put_result < want) {
            break;  // end of file, or a fault
        }
    }
    return done;
}

Result<size_t> IoBuffer::take_to_host(int fd, size_t size, int64_t offset) {
    size = std::min(size, remaining_);
    size_t done = 0;
    while (done < size) {
        char* bounce = bounce_buffer();
        const size_t want = std::min(size - done, kBounce);
        IoBuffer before = *this;  // what the host does not take is not taken
        const auto got = take(bounce, want);
        if (!got.ok()) {
            if (done == 0) {
                return got.error();
            }
            break;
        }
        const ssize_t put = offset < 0
                                ? ::write(fd, bounce, *got)
                                : ::pwrite(fd, bounce, *got, offset + static_cast<int64_t>(done));
        if (put < 0 || static_cast<size_t>(put) < *got) {
            const int error = errno;
            *this = std::move(before);
            if (put <= 0) {
                if (done == 0 && put < 0) {
                    return Errno(error);
                }
                break;
            }
            (void)take(bounce, static_cast<size_t>(put));  // moves the cursor over what was written
            done += static_cast<size_t>(put);
            break;
        }
        done += *got;
        if (*got < want) {
            break;
        }
    }
    return done;
}

}  // namespace moat::kernel
