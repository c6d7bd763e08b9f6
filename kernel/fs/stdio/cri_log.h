#pragma once

// A container's output in the CRI log format, written by the sentry itself, so that no process of
// the node has to live for it: "2026-01-02T03:04:05.000000006Z stdout F text".

#include <cstdint>
#include <string>
#include <string_view>

#include "kernel/base/cri_log_lines.h"
#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/fs/file.h"

namespace moat::kernel {

/// One log file that stdout and stderr of a container share. A line is written with its newline;
/// one longer than kLongestLine in pieces tagged P; what is left without a newline when a stream is
/// closed is tagged P too. Lines are never torn or reordered within a stream, also across reopen().
class CriLogSink final : public RefCounted {
  public:
    using Stream = LogStream;
    static constexpr size_t kLongestLine = CriLogLines::kLongest;

    /// `log` is open for appending, on a file or a pipe.
    explicit CriLogSink(ScopedFd log) : log_(std::move(log)) {}

    /// From now on to `log` (ReopenContainerLog). What has begun but not ended in a newline goes
    /// there.
    void reopen(ScopedFd log);
    /// Never fails: what cannot be written (a full disk) is counted and dropped, in whole lines,
    /// and the container goes on, as with containerd; when there is room again so does the log.
    void write(Stream stream, std::string_view text);
    /// The stream has ended: writes out what it left without a newline.
    void end(Stream stream);
    uint64_t dropped_bytes() const { return dropped_.load(std::memory_order_relaxed); }

  private:
    void flush_locked(const std::string& text) REQUIRES(mu_);

    // kCounters: below it only the log of the sentry itself.
    Mutex<LockRank::kCounters> mu_;
    ScopedFd log_ GUARDED_BY(mu_);
    CriLogLines lines_ GUARDED_BY(mu_);
    CriLogWriter writer_ GUARDED_BY(mu_);
    std::atomic<uint64_t> dropped_{0};  // a statistic
};

class Attachments;

/// A description whose writes become lines of `stream`, and are shown to those in `attached` (which
/// may be null); its end is the stream's.
RefPtr<File> make_cri_log_file(RefPtr<CriLogSink> sink, CriLogSink::Stream stream,
                               RefPtr<Attachments> attached = nullptr);

}  // namespace moat::kernel
