#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace guest {

size_t page_size();

/// Owns a mapping; unmaps it on destruction. A failed mmap fails the case or the child.
class Mapping {
  public:
    Mapping() = default;
    explicit Mapping(size_t size, int protection = PROT_READ | PROT_WRITE,
                     int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1, off_t offset = 0);
    Mapping(Mapping&& other) noexcept;
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping() { reset(); }

    char* data() const { return data_; }
    template <typename T>
    T* as(size_t offset = 0) const {
        return reinterpret_cast<T*>(data_ + offset);
    }
    size_t size() const { return size_; }
    /// Gives the range away: somebody else has unmapped or moved it.
    void release() { data_ = nullptr; }
    void reset();

  private:
    char* data_ = nullptr;
    size_t size_ = 0;
};

/// An out-buffer of exactly `size` bytes between fences: behind it lies an inaccessible page,
/// before it at least 64 bytes of a pattern. A kernel that writes too much meets the page; one that
/// writes before the start is found by intact().
class FencedBuffer {
  public:
    explicit FencedBuffer(size_t size);
    char* data() const { return start_; }
    size_t size() const { return size_; }
    /// No byte before the buffer was changed.
    bool intact() const;
    /// No byte of the buffer at or after `from` differs from the pattern it was filled with.
    bool untouched_from(size_t from) const;

  private:
    Mapping mapping_;
    char* start_;
    size_t size_;
};

/// One object in a FencedBuffer.
template <typename T>
class Fenced {
  public:
    Fenced() : buffer_(sizeof(T)) {}
    T* get() { return reinterpret_cast<T*>(buffer_.data()); }
    T* operator->() { return get(); }
    T& operator*() { return *get(); }
    bool intact() const { return buffer_.intact(); }
    bool untouched() const { return buffer_.untouched_from(0); }

  private:
    FencedBuffer buffer_;
};

/// An address in a page without any access; valid as long as the process lives.
void* bad_pointer();
template <typename T>
T* bad() {
    return static_cast<T*>(bad_pointer());
}
/// An address in the upper (kernel) half.
void* kernel_pointer();
/// A zeroed page that may be read but not written.
void* read_only_page();

/// Whether a byte can be read, asked of the kernel (write to a pipe), not by touching it.
bool readable(const void* address);

}  // namespace guest
