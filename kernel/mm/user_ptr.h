#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace moat::kernel {

/// An address in a guest's address space. Cannot be dereferenced, only handed to copy_in/copy_out.
enum class GuestAddr : uint64_t {};

constexpr uint64_t to_integer(GuestAddr a) { return static_cast<uint64_t>(a); }
constexpr GuestAddr operator+(GuestAddr a, uint64_t n) { return GuestAddr{to_integer(a) + n}; }
constexpr GuestAddr operator-(GuestAddr a, uint64_t n) { return GuestAddr{to_integer(a) - n}; }

inline constexpr uint64_t kPageSize = 4096;
constexpr uint64_t page_down(uint64_t x) { return x & ~(kPageSize - 1); }
constexpr uint64_t page_up(uint64_t x) { return (x + kPageSize - 1) & ~(kPageSize - 1); }

/// A guest's pointer to T; T is const where the kernel only reads. Only the numeric value is here:
/// Task::copy_in and copy_out move the bytes, once, and may fail with EFAULT.
template <typename T>
class UserPtr {
  public:
    using value_type = T;
    constexpr UserPtr() = default;
    explicit constexpr UserPtr(GuestAddr address) : address_(address) {}
    explicit constexpr UserPtr(uint64_t address) : address_(GuestAddr{address}) {}

    constexpr GuestAddr address() const { return address_; }
    constexpr bool is_null() const { return to_integer(address_) == 0; }
    constexpr explicit operator bool() const { return !is_null(); }
    /// The i-th element of an array that starts here. Wraps like the machine does.
    constexpr UserPtr at(size_t i) const requires(!std::is_void_v<T>) {
        return UserPtr(address_ + i * sizeof(T));
    }
    template <typename U>
    constexpr UserPtr<U> cast() const {
        return UserPtr<U>(address_);
    }

  private:
    GuestAddr address_{};
};

}  // namespace moat::kernel
