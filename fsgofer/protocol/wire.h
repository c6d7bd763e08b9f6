#pragma once

// Taking messages apart and putting them together, for both ends. Nothing here allocates.

#include <sys/types.h>

#include <cstring>
#include <string_view>

#include "fsgofer/protocol/messages.h"
#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"

namespace moat::gofer {

/// Takes a message apart. Reading past the end gives zeros and is remembered, so that a decoder
/// reads all it expects and then asks finish() once. The bytes are borrowed.
class Reader {
  public:
    Reader(const void* data, size_t size) : data_(static_cast<const char*>(data)), size_(size) {}

    template <typename T>
    T take() {
        static_assert(std::is_trivially_copyable_v<T>);
        T value{};
        if (size_ - at_ < sizeof(T)) {
            failed_ = true;
            return value;
        }
        memcpy(static_cast<void*>(&value), data_ + at_, sizeof(T));
        at_ += sizeof(T);
        return value;
    }
    std::string_view bytes(size_t length) {
        if (size_ - at_ < length) {
            failed_ = true;
            return {};
        }
        const std::string_view view(data_ + at_, length);
        at_ += length;
        return view;
    }
    /// `length` bytes and their padding.
    std::string_view padded_bytes(size_t length) {
        const auto view = bytes(length);
        bytes(padded(length) - length);
        return view;
    }
    size_t left() const { return size_ - at_; }
    bool failed() const { return failed_; }
    /// EPROTO unless the message was exactly what was read of it; that sticks.
    Status finish() {
        if (at_ != size_) {
            failed_ = true;
        }
        return failed_ ? Status(Errno(EPROTO)) : Status();
    }

  private:
    const char* data_;
    size_t size_;
    size_t at_ = 0;
    bool failed_ = false;
};

/// Puts a message together in a buffer of kMaxMessage bytes, its header first. What does not fit is
/// refused and leaves the message as it was.
class Writer {
  public:
    explicit Writer(char* buffer) : buffer_(buffer) { reset(); }

    void reset() { size_ = sizeof(Header); }
    size_t size() const { return size_; }
    size_t room() const { return kMaxMessage - size_; }

    template <typename T>
    [[nodiscard]] bool put(const T& value) {
        static_assert(std::is_trivially_copyable_v<T>);
        if (room() < sizeof(T)) {
            return false;
        }
        memcpy(buffer_ + size_, static_cast<const void*>(&value), sizeof(T));
        size_ += sizeof(T);
        return true;
    }
    [[nodiscard]] bool put_bytes(std::string_view bytes) {
        if (room() < bytes.size()) {
            return false;
        }
        if (!bytes.empty()) {
            memcpy(buffer_ + size_, bytes.data(), bytes.size());
        }
        size_ += bytes.size();
        return true;
    }
    [[nodiscard]] bool put_padded(std::string_view bytes) {
        const size_t total = padded(bytes.size());
        if (room() < total || !put_bytes(bytes)) {
            return false;
        }
        memset(buffer_ + size_, 0, total - bytes.size());
        size_ += total - bytes.size();
        return true;
    }
    /// Room for a T that is filled in by fill() when the counts are known; its offset.
    template <typename T>
    size_t reserve() {
        const size_t at = size_;
        memset(buffer_ + size_, 0, sizeof(T));
        size_ += sizeof(T);
        return at;
    }
    template <typename T>
    void fill(size_t at, const T& value) {
        memcpy(buffer_ + at, static_cast<const void*>(&value), sizeof(T));
    }
    /// For host calls that write straight into the message: the free part, then how much was used.
    char* free_space() { return buffer_ + size_; }
    void advance(size_t n) { size_ += n; }
    void set_header(Header header) {
        header.length = static_cast<uint32_t>(size_);
        fill(0, header);
    }

  private:
    char* buffer_;
    size_t size_ = 0;
};

/// Receives one packet into `buffer`; 0 at end of file. A descriptor that comes along goes to `fd`;
/// with fd == nullptr none is taken in. Errors: those of recvmsg(2); EMSGSIZE for a longer packet;
/// EPROTO for descriptors that were not expected or did not arrive. Retries on EINTR.
Result<size_t> receive_packet(int socket, char* buffer, size_t size, ScopedFd* fd, int flags = 0);
/// Sends one packet, with `fd` (borrowed) attached unless it is -1. Retries on EINTR.
Status send_packet(int socket, const char* data, size_t size, int fd = -1);

/// One name of a directory: 0, or the errno that it deserves.
int check_name(std::string_view name);
/// A whole path by the protocol's rules: 0, or the errno that it deserves.
int check_path(std::string_view path);

}  // namespace moat::gofer
