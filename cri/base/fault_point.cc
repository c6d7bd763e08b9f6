#include "cri/base/fault_point.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cctype>
#include <cstdlib>
#include <string>

namespace moat::cri {

namespace {

struct Wanted {
    std::string name;
    int passing = 0;
    int seen_fd = -1;
    bool inert = true;

    Wanted() {
        if (const char* file = getenv("MOAT_FAULT_POINTS_SEEN")) {
            seen_fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        }
        if (const char* point = getenv("MOAT_FAULT_POINT")) {
            const std::string text = point;
            const size_t hash = text.rfind('#');
            name = text.substr(0, hash);
            passing = hash == std::string::npos ? 1 : atoi(text.c_str() + hash + 1);
        }
        inert = seen_fd < 0 && name.empty();
    }
};

const Wanted& wanted() {
    static const Wanted wanted;
    return wanted;
}

}  // namespace

void fault_point(const char* name) {
    const Wanted& what = wanted();
    if (what.inert) [[likely]] {
        return;
    }
    if (what.seen_fd >= 0) {
        const std::string line = std::string(name) + "\n";
        (void)!write(what.seen_fd, line.data(), line.size());
    }
    static std::atomic<int> passed = 0;
    if (what.name == name && ++passed == what.passing) {
        kill(getpid(), SIGKILL);
        for (;;) {
            pause();
        }
    }
}

void fault_point_of_statement(const char* moment, std::string_view sql) {
    if (wanted().inert) [[likely]] {
        return;
    }
    // "INSERT OR REPLACE INTO settings (key..." and the like: verb and table are enough.
    std::string name = std::string("database.") + moment;
    for (int words = 0; words < 5 && !sql.empty(); ++words) {
        size_t end = 0;
        while (end < sql.size() &&
               (isalnum(static_cast<unsigned char>(sql[end])) != 0 || sql[end] == '_')) {
            ++end;
        }
        const std::string_view word = sql.substr(0, end);
        if (word.empty() || word == "SET" || word == "WHERE") {
            break;
        }
        if (word != "INTO" && word != "FROM" && word != "OR" && word != "REPLACE") {
            name += " " + std::string(word);
        }
        sql.remove_prefix(end < sql.size() && sql[end] == ' ' ? end + 1 : end);
    }
    fault_point(name.c_str());
}

}  // namespace moat::cri
