#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/mm/user_ptr.h"

namespace moat::kernel {

class AddressSpace;

/// Where read(2)-like calls put bytes and write(2)-like calls take them from: ranges of a guest's
/// memory, or one buffer of the sentry. A cursor: each transfer moves it on. Copyable, so that a
/// blocked call can keep it; owns a reference to the guest's address space but not a sentry buffer.
class IoBuffer {
  public:
    // Defined where AddressSpace is known (io_buffer.cc), so that users need not.
    IoBuffer();
    IoBuffer(const IoBuffer&);
    IoBuffer(IoBuffer&&) noexcept;
    IoBuffer& operator=(const IoBuffer&);
    IoBuffer& operator=(IoBuffer&&) noexcept;
    ~IoBuffer();
    static IoBuffer guest(RefPtr<AddressSpace> mm, GuestAddr address, size_t size);
    /// EINVAL: more than IOV_MAX pieces or a total beyond SSIZE_MAX; EFAULT: the array itself.
    static Result<IoBuffer> guest_iovec(RefPtr<AddressSpace> mm, UserPtr<const iovec> pieces,
                                        size_t count);
    /// `data` is borrowed and must outlive the buffer.
    static IoBuffer sentry(void* data, size_t size);
    static IoBuffer sentry(const void* data, size_t size) {
        return sentry(const_cast<void*>(data), size);  // used as a source only
    }

    /// Bytes not yet transferred.
    size_t remaining() const { return remaining_; }
    bool empty() const { return remaining_ == 0; }
    /// Bytes transferred since the buffer was made.
    size_t transferred() const { return transferred_; }
    /// Forgets everything beyond the next `size` bytes.
    void truncate(size_t size);
    /// Counts what remains as transferred without looking at it. Returns how much that was.
    size_t skip_rest();

    /// Copies up to `size` bytes into the buffer. Fewer only where the buffer ends or faults after
    /// some bytes; EFAULT when not one byte could be copied (and size and remaining() are not 0).
    Result<size_t> put(const void* source, size_t size);
    /// Copies up to `size` bytes out of the buffer; as put().
    Result<size_t> take(void* destination, size_t size);
    Result<size_t> put_zeros(size_t size);
    /// Reads from the host descriptor `fd` at `offset` (-1: its own position) into the buffer.
    Result<size_t> put_from_host(int fd, size_t size, int64_t offset);
    /// Writes to the host descriptor `fd` at `offset` (-1: its own position) from the buffer.
    Result<size_t> take_to_host(int fd, size_t size, int64_t offset);

  private:
    struct Piece {
        uint64_t address;
        size_t size;
    };
    template <typename Copy>
    Result<size_t> transfer(size_t size, Copy copy);

    RefPtr<AddressSpace> mm_;  // null: pieces are addresses of the sentry
    std::vector<Piece> pieces_;
    size_t index_ = 0;
    size_t offset_ = 0;  // into pieces_[index_]
    size_t remaining_ = 0;
    size_t transferred_ = 0;
};

}  // namespace moat::kernel
