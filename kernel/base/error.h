#pragma once

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "kernel/base/result.h"

namespace moat {

/// The node side's error (cgroups/, runtime/, cri/), for the person on call: the errno for
/// programs, the message for people. Each layer puts its own step in front: "create web-1: mount
/// proc at /proc: Operation not permitted".
class [[nodiscard]] Error {
  public:
    Error(int code, std::string message) : code_(code), message_(std::move(message)) {}
    /// `step` failed with the host's errno `code`.
    static Error from_errno(int code, const std::string& step) {
        return Error(code, step + ": " + std::strerror(code));
    }
    int code() const { return code_; }
    const std::string& message() const { return message_; }
    Error within(const std::string& step) const { return Error(code_, step + ": " + message_); }

  private:
    int code_;
    std::string message_;
};

inline Error in_step(const Error& error, const std::string& step) { return error.within(step); }
inline Error in_step(const Errno& error, const std::string& step) {
    return Error::from_errno(error.value(), step);
}

/// TRY for a Result of any kind, its error named by the step: TRY_STEP("pivot into the root", f()).
#define TRY_STEP_IMPL(r, step, ...)                  \
    ({                                               \
        auto r = (__VA_ARGS__);                      \
        if (!r.ok()) [[unlikely]]                    \
            return ::moat::in_step(r.error(), step); \
        std::move(r).value();                        \
    })
#define TRY_STEP(step, ...) TRY_STEP_IMPL(TRY_CAT(try_step_, __COUNTER__), step, __VA_ARGS__)

}  // namespace moat
