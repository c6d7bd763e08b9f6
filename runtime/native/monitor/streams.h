#pragma once

// What a native container writes, on its way to the log and to those who are attached; and what
// they write to it.

#include <poll.h>

#include <string>
#include <vector>

#include "kernel/base/cri_log_lines.h"
#include "kernel/base/scoped_fd.h"

namespace moat::monitor {

/// Somebody attached who has read nothing for so long is cut off: until then he slows the
/// container.
inline constexpr int64_t kStallMs = 10'000;
/// How much may wait for one who is attached before the container has to.
inline constexpr size_t kPendingLimit = 64 << 10;

class Streams {
  public:
    /// `log` may be invalid: the output is then only shown to whoever is attached.
    explicit Streams(ScopedFd log) : log_(std::move(log)) {}

    void set_output(LogStream stream, ScopedFd source);
    /// Where attached input goes. `once`: the first attached input's end closes it.
    void set_input(ScopedFd to, bool once);
    void reopen(ScopedFd log) {
        if (log_) {
            writer_.leave(log_.get());
        }
        log_ = std::move(log);
    }
    void attach(ScopedFd in, ScopedFd out, ScopedFd err);
    bool takes_input() const { return bool(input_); }
    /// All that the container wrote is in the log.
    bool ended() const { return !outputs_[0].source && !outputs_[1].source; }
    /// ... and delivered to those who are attached.
    bool delivered() const;
    /// The writers are dead; what has not come by now never will.
    void give_up();

    /// Adds what to wait for; returns how long at most, in ms, -1: for ever.
    int prepare(std::vector<pollfd>& fds);
    /// After poll(): the entries that prepare() added, in its order.
    void handle(const pollfd* fds);

  private:
    struct Attached {
        ScopedFd fd;
        std::string pending;
        int64_t moved_ms = 0;  ///< when it last took something, or had nothing to take
    };
    struct Output {
        ScopedFd source;
        std::vector<Attached> attached;
    };
    void read_output(LogStream stream);
    void end_output(LogStream stream);
    static void flush(Attached& one);
    void write_log(const std::string& lines);
    void read_input(ScopedFd& from);
    void flush_input();

    ScopedFd log_;
    CriLogLines lines_;
    CriLogWriter writer_;
    Output outputs_[2];
    ScopedFd input_;
    bool input_once_ = false;
    bool input_ending_ = false;
    std::string input_pending_;
    std::vector<ScopedFd> inputs_;
};

}  // namespace moat::monitor
