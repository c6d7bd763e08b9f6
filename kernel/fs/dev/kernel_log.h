#pragma once

// The guest kernel's message buffer: what dmesg(1), syslog(2) and /dev/kmsg show. One a sentry.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

class File;

struct KernelMessage {
    uint64_t sequence = 0;
    uint8_t priority = 6;   ///< facility << 3 | level
    int64_t uptime_us = 0;  ///< since the sentry started
    std::string text;       ///< one line, without its newline

    /// "<6>[    0.000012] text\n", as syslog(2) gives it.
    std::string as_syslog() const;
    /// "6,1,12,-;text\n", as a read of /dev/kmsg gives it.
    std::string as_kmsg() const;
};

inline constexpr size_t kKernelLogBytes = 64 * 1024;  ///< of text; older messages go

/// Adds a line, cut at 900 bytes.
void kernel_log(const char* format, ...) __attribute__((format(printf, 1, 2)));
void kernel_log_text(uint8_t priority, std::string text);
/// The first message with at least `sequence`; nothing: none yet.
std::optional<KernelMessage> kernel_log_at(uint64_t sequence);
uint64_t kernel_log_oldest();
uint64_t kernel_log_next();
WaitQueue& kernel_log_events();

/// A description of /dev/kmsg.
RefPtr<File> make_kmsg_file(uint32_t flags);

}  // namespace moat::kernel
