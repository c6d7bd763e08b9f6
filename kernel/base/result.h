#pragma once

#include <cerrno>
#include <type_traits>
#include <utility>
#include <variant>

namespace moat {

/// A Linux errno, never 0. Values below 512 reach the guest as they are; those from 512 on are
/// internal to the kernel and die in the syscall exit path (include/linux/errno.h has the same
/// split).
class [[nodiscard]] Errno {
  public:
    explicit constexpr Errno(int value) : value_(value) {}
    constexpr int value() const { return value_; }
    constexpr bool operator==(const Errno&) const = default;
    constexpr bool operator==(int value) const { return value_ == value; }

  private:
    int value_;
};

/// Internal codes, Linux's meanings. kRestartSys: restart if no handler runs or it has SA_RESTART.
inline constexpr Errno kRestartSys{512};
/// Restart always, unseen by handlers.
inline constexpr Errno kRestartNoIntr{513};
/// Restart only if no handler runs.
inline constexpr Errno kRestartNoHand{514};
/// Not an error: the call was stored as a continuation and will be completed by whoever makes it
/// ready (kernel/task/block.h). The worker goes back to its listener.
inline constexpr Errno kBlocked{600};
/// Not an error: let the host kernel execute this very call (scalar arguments, range-checked).
inline constexpr Errno kContinueOnHost{601};
/// Not an error: the handler needs the caller's full registers or injected calls. The platform
/// brings the thread into the stub and the handler is called again with `task.in_stub()` true.
inline constexpr Errno kNeedStub{602};
/// Not an error: the task has ended, or its registers are already what they have to be.
inline constexpr Errno kNoReturn{603};

/// A value or an error. `E` is Errno in kernel/ and fsgofer/, a message-carrying Error elsewhere.
template <typename T = void, typename E = Errno>
class [[nodiscard]] Result {
  public:
    using value_type = T;
    using error_type = E;

    template <typename U = T>
    requires(std::is_convertible_v<U&&, T> && !std::is_same_v<std::decay_t<U>, Result> &&
             !std::is_same_v<std::decay_t<U>, E>) constexpr Result(U&& value)
        : v_(std::in_place_index<0>, std::forward<U>(value)) {}
    constexpr Result(E error) : v_(std::in_place_index<1>, std::move(error)) {}

    constexpr bool ok() const { return v_.index() == 0; }
    constexpr explicit operator bool() const { return ok(); }
    constexpr T& value() & { return *std::get_if<0>(&v_); }
    constexpr const T& value() const& { return *std::get_if<0>(&v_); }
    constexpr T&& value() && { return std::move(*std::get_if<0>(&v_)); }
    constexpr const E& error() const { return *std::get_if<1>(&v_); }
    constexpr T value_or(T other) const { return ok() ? value() : std::move(other); }
    constexpr T* operator->() { return &value(); }
    constexpr const T* operator->() const { return &value(); }
    constexpr T& operator*() & { return value(); }
    constexpr const T& operator*() const& { return value(); }
    constexpr T&& operator*() && { return std::move(*this).value(); }

  private:
    std::variant<T, E> v_;
};

template <typename E>
class [[nodiscard]] Result<void, E> {
  public:
    using value_type = void;
    using error_type = E;

    constexpr Result() = default;
    constexpr Result(E error) : v_(std::in_place_index<1>, std::move(error)) {}

    constexpr bool ok() const { return v_.index() == 0; }
    constexpr explicit operator bool() const { return ok(); }
    constexpr void value() const {}
    constexpr const E& error() const { return *std::get_if<1>(&v_); }

  private:
    std::variant<std::monostate, E> v_;
};

using Status = Result<void>;

#define TRY_CAT_(a, b) a##b
#define TRY_CAT(a, b) TRY_CAT_(a, b)
#define TRY_IMPL(r, ...)          \
    ({                            \
        auto r = (__VA_ARGS__);   \
        if (!r.ok()) [[unlikely]] \
            return r.error();     \
        std::move(r).value();     \
    })
/// The value of a Result, or return its error from the enclosing function.
#define TRY(...) TRY_IMPL(TRY_CAT(try_result_, __COUNTER__), __VA_ARGS__)

/// The result of a host call in the kernel's convention: -1 and errno become an Errno.
template <typename I>
Result<I> host_result(I returned) {
    if (returned == static_cast<I>(-1)) {
        return Errno(errno);
    }
    return returned;
}

}  // namespace moat
