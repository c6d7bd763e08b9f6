#pragma once

#include <string.h>

#include <map>
#include <string>
#include <utility>

#include "kernel/base/result.h"
#include "kernel/base/scoped_fd.h"

namespace moat::kernel {

/// Why a request failed: the errno for programs, the step for people.
struct Failure {
    int error = 0;
    std::string message;
};
template <typename T = void>
using Outcome = moat::Result<T, Failure>;

inline Failure failure(int error, std::string message) { return {error, std::move(message)}; }
inline Failure failure(const Errno& error, const std::string& step) {
    return {error.value(), step + ": " + strerror(error.value())};
}

/// TRY for a call of the kernel's inside a function whose errors have a step.
#define TRY_AS(step, ...)                                              \
    ({                                                                 \
        auto step_result = (__VA_ARGS__);                              \
        if (!step_result.ok()) [[unlikely]]                            \
            return ::moat::kernel::failure(step_result.error(), step); \
        std::move(step_result).value();                                \
    })

/// Descriptors that came with a request, by name.
using NamedFds = std::map<std::string, ScopedFd>;

/// Takes one out; an invalid one if it did not come.
inline ScopedFd take_fd(NamedFds& fds, const std::string& name) {
    const auto it = fds.find(name);
    return it == fds.end() ? ScopedFd() : std::move(fds.extract(it).mapped());
}

}  // namespace moat::kernel
