#include "kernel/base/cri_log_lines.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <algorithm>

namespace moat {

namespace {

/// RFC 3339 with nanoseconds, in UTC. Seconds are cut up only when they change.
void append_time(std::string& to) {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    thread_local time_t last = -1;
    thread_local char text[32];
    if (now.tv_sec != last) {
        tm utc{};
        gmtime_r(&now.tv_sec, &utc);
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
        last = now.tv_sec;
    }
    char fraction[16];
    snprintf(fraction, sizeof fraction, ".%09ldZ", now.tv_nsec);
    to += text;
    to += fraction;
}

void put_line(std::string& to, LogStream stream, char tag, std::string_view text) {
    append_time(to);
    to += stream == LogStream::kStdout ? " stdout " : " stderr ";
    to += tag;
    to += ' ';
    to += text;
    to += '\n';
}

}  // namespace

std::string CriLogLines::add(LogStream stream, std::string_view text) {
    std::string& begun = begun_[static_cast<size_t>(stream)];
    std::string out;
    while (!text.empty()) {
        const size_t newline = text.find('\n');
        const size_t length = newline == std::string_view::npos ? text.size() : newline;
        const size_t room = kLongest - begun.size();
        if (length > room) {
            begun += text.substr(0, room);
            put_line(out, stream, 'P', begun);
            begun.clear();
            text.remove_prefix(room);
            continue;
        }
        if (newline == std::string_view::npos) {
            begun += text;
            break;
        }
        if (begun.empty()) {
            put_line(out, stream, 'F', text.substr(0, length));
        } else {
            begun += text.substr(0, length);
            put_line(out, stream, 'F', begun);
            begun.clear();
        }
        text.remove_prefix(length + 1);
    }
    return out;
}

std::string CriLogLines::end(LogStream stream) {
    std::string& begun = begun_[static_cast<size_t>(stream)];
    std::string out;
    if (!begun.empty()) {
        put_line(out, stream, 'P', begun);
        begun.clear();
    }
    return out;
}

namespace {

/// How much of `text` went into the file.
size_t write_some(int fd, std::string_view text, int& error) {
    size_t done = 0;
    while (done < text.size()) {
        const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
        if (n > 0) {
            done += static_cast<size_t>(n);
        } else if (n == 0 || errno != EINTR) {
            error = n == 0 ? ENOSPC : errno;
            break;
        }
    }
    return done;
}

}  // namespace

size_t CriLogWriter::write(int fd, std::string_view lines, int& error) {
    rest_.erase(0, write_some(fd, rest_, error));
    if (!rest_.empty()) {
        return lines.size();
    }
    const size_t done = write_some(fd, lines, error);
    if (done == lines.size()) {
        return 0;
    }
    size_t kept = done;
    if (done > 0 && lines[done - 1] != '\n') {
        kept = std::min(lines.find('\n', done), lines.size() - 1) + 1;
        rest_ = lines.substr(done, kept - done);
    }
    return lines.size() - kept;
}

void CriLogWriter::leave(int fd) {
    int error = 0;
    (void)write_some(fd, rest_, error);
    rest_.clear();
}

}  // namespace moat
