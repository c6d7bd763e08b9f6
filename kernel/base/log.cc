#include "kernel/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

namespace moat {

namespace {

std::atomic<int> log_fd{STDERR_FILENO};
std::atomic<LogLevel> log_level{LogLevel::kInfo};
const char* log_program = "moat";

}  // namespace

void log_configure(int fd, LogLevel level, const char* program) {
    log_fd = fd;
    log_level = level;
    log_program = program;
}

bool log_enabled(LogLevel level) { return level >= log_level.load(std::memory_order_relaxed); }

void log_write(LogLevel level, const char* module, const char* format, ...) {
    static const char kLetters[] = "DIWE";
    char line[1024];
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    tm utc;
    gmtime_r(&now.tv_sec, &utc);
    int n = snprintf(line, sizeof line,
                     "%04d-%02d-%02dT%02d:%02d:%02d.%06ldZ %c %s[%d] %s: ", utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                     now.tv_nsec / 1000, kLetters[static_cast<int>(level)], log_program, getpid(),
                     module);
    va_list args;
    va_start(args, format);
    n += vsnprintf(line + n, sizeof line - n - 1, format, args);
    va_end(args);
    n = std::min<int>(n, sizeof line - 2);
    line[n++] = '\n';
    [[maybe_unused]] const ssize_t written = ::write(log_fd.load(), line, n);
}

}  // namespace moat
