#pragma once

#include <cstdint>

namespace moat {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };

/// Sends log lines to `fd` (borrowed; stderr by default) from `level` on. Called once, at start.
void log_configure(int fd, LogLevel level, const char* program);
bool log_enabled(LogLevel level);
/// Formats into a fixed stack buffer and makes one write(2); safe from any thread.
void log_write(LogLevel level, const char* module, const char* format, ...)
    __attribute__((format(printf, 3, 4)));

}  // namespace moat

/// LOG(kInfo, "task", "container %s: init is %d", id, pid). The module is the folder below kernel/.
#define LOG(level, module, ...)                                              \
    do {                                                                     \
        if (::moat::log_enabled(::moat::LogLevel::level))                    \
            ::moat::log_write(::moat::LogLevel::level, module, __VA_ARGS__); \
    } while (0)
/// Once per place: for anything a guest can trigger at will.
#define LOG_ONCE(level, module, ...)                            \
    do {                                                        \
        static std::atomic<bool> logged_{false};                \
        if (!logged_.exchange(true, std::memory_order_relaxed)) \
            LOG(level, module, __VA_ARGS__);                    \
    } while (0)
