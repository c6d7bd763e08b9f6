#pragma once

// How a row of the table becomes a call: `full<sys_openat>(257, "openat", "dirfd, path, open_flags,
// mode")` derives the decoding of the six registers from the handler's own signature.

#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernel/base/result.h"
#include "kernel/mm/user_ptr.h"
#include "kernel/task/task.h"

namespace moat::kernel {

enum class Support : uint8_t { kNone, kFull, kPartial, kRefused };

struct SyscallEntry {
    uint16_t number = 0;
    const char* name = nullptr;
    const char* format = "";  ///< for strace: a kind per argument (kernel/strace/)
    const char* note = "";    ///< what is missing, for kPartial and kRefused
    Support support = Support::kNone;
    Result<int64_t> (*handler)(Task&) = nullptr;
    int16_t refusal = 0;  ///< errno of kRefused
};

namespace internal {

template <typename T>
constexpr T decode(uint64_t raw) {
    if constexpr (std::is_enum_v<T>) {
        return static_cast<T>(static_cast<std::underlying_type_t<T>>(raw));
    } else if constexpr (std::is_integral_v<T>) {
        return static_cast<T>(raw);  // an int takes the low 32 bits, as the ABI says
    } else {
        return T(raw);  // UserPtr, GuestAddr
    }
}

template <typename R>
Result<int64_t> encode(R result) {
    if (!result.ok()) {
        return result.error();
    }
    if constexpr (std::is_void_v<typename R::value_type>) {
        return 0;
    } else {
        return static_cast<int64_t>(result.value());
    }
}

template <auto Handler>
struct Adapter;

template <typename R, typename... Args, R (*Handler)(Task&, Args...)>
struct Adapter<Handler> {
    static_assert(sizeof...(Args) <= 6);
    static Result<int64_t> call(Task& task) {
        return call_with(task, std::index_sequence_for<Args...>{});
    }
    template <size_t... I>
    static Result<int64_t> call_with(Task& task, std::index_sequence<I...>) {
        [[maybe_unused]] const uint64_t* raw = task.arguments().value;
        return encode(Handler(task, decode<Args>(raw[I])...));
    }
};

}  // namespace internal

template <auto Handler>
consteval SyscallEntry full(uint16_t number, const char* name, const char* format) {
    return {number, name, format, "", Support::kFull, internal::Adapter<Handler>::call, 0};
}
template <auto Handler>
consteval SyscallEntry partial(uint16_t number, const char* name, const char* format,
                               const char* note) {
    return {number, name, format, note, Support::kPartial, internal::Adapter<Handler>::call, 0};
}
/// Answered with `error` and nothing else, on purpose.
consteval SyscallEntry refused(uint16_t number, const char* name, int error, const char* why) {
    return {number, name, "", why, Support::kRefused, nullptr, static_cast<int16_t>(error)};
}
/// Not built: ENOSYS, counted and logged once by name.
consteval SyscallEntry missing(uint16_t number, const char* name) {
    return {number, name, "", "not built", Support::kNone, nullptr, 0};
}

/// The entry of `number`, or null beyond the table.
const SyscallEntry* find_syscall(uint64_t number);

/// An unsupported branch of a supported call: counts, logs once by name, gives `error`.
///     return unsupported("fcntl F_SETSIG", EINVAL);
Errno unsupported(const char* what, int error);

}  // namespace moat::kernel
