#pragma once

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "kernel/base/check.h"

namespace moat {

/// Owner of one descriptor of the host. No conversion to int: `get()` is written out where a host
/// descriptor is really meant, so that it can never be taken for a guest's.
class ScopedFd {
  public:
    constexpr ScopedFd() = default;
    explicit constexpr ScopedFd(int fd) : fd_(fd) {}
    ScopedFd(ScopedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    ScopedFd& operator=(ScopedFd&& other) noexcept {
        if (this != &other) {
            reset(std::exchange(other.fd_, -1));
        }
        return *this;
    }
    ~ScopedFd() { reset(); }

    int get() const { return fd_; }
    bool valid() const { return fd_ >= 0; }
    explicit operator bool() const { return valid(); }
    [[nodiscard]] int release() { return std::exchange(fd_, -1); }
    void reset(int fd = -1) {
        const int old = std::exchange(fd_, fd);
        if (old >= 0 && ::close(old) != 0) {
            // Other errors leave the descriptor closed (close(2)); EBADF means someone else closed
            // what we own, and the next open would be stolen.
            CHECK(errno != EBADF);
        }
    }

  private:
    int fd_ = -1;
};

}  // namespace moat
