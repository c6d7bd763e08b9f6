#pragma once

#include <spdlog/common.h>
#include <spdlog/formatter.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace moat::cri {

struct Settings;

/// Lines on stderr, with the level and the format of `settings`; once, before any thread logs.
void start_log(const Settings& settings);
/// Level and format again, while threads log.
void configure_log(const Settings& settings);

/// A line is key=value text or one JSON object: time (RFC 3339, UTC), level, msg, then fields.
/// Control characters are escaped in both, so that no client can write a line of its own.
enum class LogFormat { kText, kJson };
std::unique_ptr<spdlog::formatter> make_log_formatter(LogFormat format);

struct LogField {
    std::string_view key;
    std::string value;
};
/// A line with fields. Plain spdlog calls work too; they have those of the thread's scopes.
void log_event(spdlog::level::level_enum level, std::string_view message,
               std::initializer_list<LogField> fields);

/// A field on every line that this thread logs while the object lives: pod, container, rpc,
/// request. Of two with the same key the inner one is written. `key` must outlive it.
class LogScope {
  public:
    LogScope(std::string_view key, std::string value);
    ~LogScope();
    LogScope(const LogScope&) = delete;
    LogScope& operator=(const LogScope&) = delete;

  private:
    friend class LineFormatter;
    std::string_view key_;
    std::string value_;
    LogScope* outer_;
};

/// For lines that a client can cause at will: a burst, then a few a second; the next line that is
/// admitted tells how many were not. Thread-safe.
class LogLimit {
  public:
    LogLimit(int burst, int per_second) : burst_(burst), per_second_(per_second), tokens_(burst) {}
    struct Verdict {
        bool admitted;
        uint64_t suppressed;  ///< since the last line that was
    };
    /// `now_ms`: of a monotonic clock.
    Verdict admit(int64_t now_ms);
    Verdict admit();

  private:
    const int burst_;
    const int per_second_;
    std::mutex mu_;
    double tokens_;  ///< this and the rest: guarded by mu_
    int64_t last_ms_ = 0;
    uint64_t suppressed_ = 0;
};

}  // namespace moat::cri
