#pragma once

// The CRI's log format, for whoever writes a container's log: the sentry of a sandboxed pod, the
// monitor of a native container.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace moat {

enum class LogStream : uint8_t { kStdout, kStderr };

/// Turns what a container writes into lines: "2026-01-02T03:04:05.000000006Z stdout F text". A line
/// is given out with its newline; one longer than kLongest in pieces tagged P; what is left without
/// a newline when its stream ends is tagged P too. Not thread-safe.
class CriLogLines {
  public:
    static constexpr size_t kLongest = 16 * 1024;

    /// The lines that are complete with `text`.
    std::string add(LogStream stream, std::string_view text);
    /// The stream has ended: what it left without a newline.
    std::string end(LogStream stream);

  private:
    std::string begun_[2];
};

/// Writes such lines to a file that may be full or broken: what does not fit is dropped, whole
/// lines of it. A line that was cut is finished first when there is room again, so a reader of the
/// log meets no half lines. Not thread-safe.
class CriLogWriter {
  public:
    /// `lines` ends in a newline, or is empty. Returns how many bytes of it were dropped; `error`
    /// is then why.
    size_t write(int fd, std::string_view lines, int& error);
    /// The file is about to be left: what is cut now stays so.
    void leave(int fd);

  private:
    std::string rest_;  ///< of the line that was cut; at most one line
};

}  // namespace moat
