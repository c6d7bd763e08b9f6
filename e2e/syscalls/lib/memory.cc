#include "e2e/syscalls/lib/memory.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "e2e/syscalls/lib/guest.h"

namespace guest {

namespace {
constexpr unsigned char kFill = 0xa5;
constexpr size_t kMinimumFence = 64;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
}  // namespace

size_t page_size() { return static_cast<size_t>(::sysconf(_SC_PAGESIZE)); }

Mapping::Mapping(size_t size, int protection, int flags, int fd, off_t offset) : size_(size) {
    void* address = ::mmap(nullptr, size, protection, flags, fd, offset);
    if (address == MAP_FAILED) {
        fatal("mmap: " + errno_name(errno));
    }
    data_ = static_cast<char*>(address);
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    if (this != &other) {
        reset();
        data_ = std::exchange(other.data_, nullptr);
        size_ = other.size_;
    }
    return *this;
}

void Mapping::reset() {
    if (data_ != nullptr) {
        ::munmap(data_, size_);
        data_ = nullptr;
    }
}

FencedBuffer::FencedBuffer(size_t size)
    : mapping_(round_up(size + kMinimumFence, page_size()) + page_size()), size_(size) {
    const size_t usable = mapping_.size() - page_size();
    std::memset(mapping_.data(), kFill, usable);
    start_ = mapping_.data() + usable - size;
    if (::mprotect(mapping_.data() + usable, page_size(), PROT_NONE) != 0) {
        fatal("mprotect: " + errno_name(errno));
    }
}

bool FencedBuffer::intact() const {
    for (const char* p = mapping_.data(); p < start_; ++p) {
        if (static_cast<unsigned char>(*p) != kFill) {
            return false;
        }
    }
    return true;
}

bool FencedBuffer::untouched_from(size_t from) const {
    for (size_t i = from; i < size_; ++i) {
        if (static_cast<unsigned char>(start_[i]) != kFill) {
            return false;
        }
    }
    return true;
}

void* bad_pointer() {
    // 64 bytes before the end of a page between two others, so that neither a large object nor a
    // negative offset finds something accessible.
    static char* const page = [] {
        void* address =
            ::mmap(nullptr, 64 * page_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (address == MAP_FAILED) {
            fatal("mmap: " + errno_name(errno));
        }
        return static_cast<char*>(address);
    }();
    return page + 32 * page_size();
}

void* kernel_pointer() { return reinterpret_cast<void*>(0xffff'8000'0000'0000UL); }

void* read_only_page() {
    static void* const page = [] {
        void* address =
            ::mmap(nullptr, 16 * page_size(), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (address == MAP_FAILED) {
            fatal("mmap: " + errno_name(errno));
        }
        return address;
    }();
    return page;
}

bool readable(const void* address) {
    const Pipe pipe;
    return ::write(pipe.write_end.get(), address, 1) == 1;
}

}  // namespace guest
