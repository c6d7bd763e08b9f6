#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <nlohmann/json.hpp>

#include "runtime/cli/cli.h"
#include "runtime/container/impl.h"
#include "runtime/util/files.h"

namespace moat::runtime::cli {

int Cli::fail(const Error& error) const {
    // Control bytes of a hostile name must not reach the terminal of the person on call.
    std::string text = error.message();
    for (char& c : text) {
        if (static_cast<unsigned char>(c) < ' ' && c != '\n' && c != '\t') {
            c = '?';
        }
    }
    fprintf(stderr, "moat: %s\n", text.c_str());
    if (!log.empty()) {
        // containerd and CRI-O read the last error from this file, in runc's two formats.
        const ScopedFd fd(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
        if (fd) {
            const std::string when = rfc3339(now_ns());
            const std::string line =
                log_format == "json"
                    ? nlohmann::json({{"level", "error"}, {"msg", text}, {"time", when}})
                          .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
                    : "time=\"" + when + "\" level=error msg=" +
                          nlohmann::json(text).dump(-1, ' ', false,
                                                    nlohmann::json::error_handler_t::replace);
            (void)write_all(fd.get(), line + "\n");
        }
    }
    return 1;
}

Result<int> parse_signal(const std::string& text) {
    char* end;
    const long number = strtol(text.c_str(), &end, 10);
    if (!text.empty() && *end == '\0') {
        if (number >= 0 && number <= 64) {
            return static_cast<int>(number);
        }
    } else {
        const char* name = text.c_str();
        if (strncasecmp(name, "SIG", 3) == 0) {
            name += 3;
        }
        for (int sig = 1; sig < 32; sig++) {
            const char* known = sigabbrev_np(sig);
            if (known != nullptr && strcasecmp(name, known) == 0) {
                return sig;
            }
        }
        // RTMIN, RTMIN+3, RTMAX-2: the guest's numbers, 34 to 64, are glibc's.
        for (const auto& [base, value] : {std::pair{"RTMIN", 34}, std::pair{"RTMAX", 64}}) {
            if (strncasecmp(name, base, 5) == 0) {
                const int offset = name[5] == '\0' ? 0 : atoi(name + 5);
                if (value + offset >= 34 && value + offset <= 64) {
                    return value + offset;
                }
            }
        }
    }
    return Error(EINVAL, "signal \"" + text + "\": expected a name like TERM or a number to 64");
}

std::string rfc3339(int64_t ns) {
    const time_t seconds = ns / 1000000000;
    tm utc;
    gmtime_r(&seconds, &utc);
    char text[64];
    snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%09dZ", utc.tm_year + 1900,
             utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
             static_cast<int>(ns % 1000000000));
    return text;
}

}  // namespace moat::runtime::cli
