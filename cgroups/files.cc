#include "cgroups/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

namespace moat::cgroups {

Result<std::string> read_file(const std::string& path) {
    ScopedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + path);
    }
    std::string text;
    char buffer[8192];
    for (;;) {
        const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return Error::from_errno(errno, "read " + path);
        }
        if (n == 0) {
            return text;
        }
        text.append(buffer, n);
    }
}

Status write_file(const std::string& path, const std::string& value) {
    ScopedFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + path);
    }
    ssize_t n;
    do {
        n = ::write(fd.get(), value.data(), value.size());
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return Error::from_errno(errno, "write \"" + value + "\" to " + path);
    }
    return {};
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

uint64_t read_number(const std::string& path) {
    const auto text = read_file(path);
    return text.ok() ? strtoull(text->c_str(), nullptr, 10) : 0;
}

uint64_t flat_value(const std::string& text, const std::string& key) {
    size_t at = 0;
    while (at < text.size()) {
        const size_t end = std::min(text.find('\n', at), text.size());
        if (text.compare(at, key.size(), key) == 0 && at + key.size() < end &&
            text[at + key.size()] == ' ') {
            return strtoull(text.c_str() + at + key.size() + 1, nullptr, 10);
        }
        at = end + 1;
    }
    return 0;
}

std::vector<std::string> huge_page_sizes(const std::string& directory, const std::string& suffix) {
    constexpr std::string_view kPrefix = "hugetlb.";
    std::vector<std::string> sizes;
    if (DIR* dir = ::opendir(directory.c_str())) {
        while (const dirent* entry = ::readdir(dir)) {
            const std::string_view name = entry->d_name;
            if (name.starts_with(kPrefix) && name.ends_with(suffix) &&
                name.find(".rsvd.") == std::string_view::npos) {
                sizes.emplace_back(
                    name.substr(kPrefix.size(), name.size() - kPrefix.size() - suffix.size()));
            }
        }
        ::closedir(dir);
    }
    std::sort(sizes.begin(), sizes.end());
    return sizes;
}

Status check_page_sizes(const Limits& limits) {
    for (const auto& [size, bytes] : limits.huge_pages) {
        if (size.empty() || size.find('/') != std::string::npos) {
            return Error(EINVAL, "set limits: huge page size \"" + size + "\": not such as 2MB");
        }
    }
    return {};
}

Status FileChanges::write(const std::string& path, const std::string& value) {
    auto old = read_file(path);
    TRY(write_file(path, value));
    if (old.ok()) {
        old_.push_back({path, std::move(*old)});
    }
    return {};
}

FileChanges::~FileChanges() {
    for (auto it = old_.rbegin(); it != old_.rend(); ++it) {
        (void)write_file(it->path, it->value);  // the error that is reported is the first one
    }
}

Status make_directories(const std::string& mount_point, const std::string& path,
                        Status (*made)(const std::string& directory)) {
    // Another sandbox that goes away may remove an empty shared parent between two of our steps;
    // then we begin again.
    for (int attempt = 0;; attempt++) {
        bool again = false;
        size_t at = 0;
        while (at != std::string::npos && !again) {
            at = path.find('/', at + 1);
            const std::string directory = mount_point + path.substr(0, at);
            if (::mkdir(directory.c_str(), 0755) == 0) {
                if (made != nullptr) {
                    TRY(made(directory));
                }
            } else if (errno == ENOENT && attempt < 100) {
                again = true;
            } else if (errno != EEXIST) {
                return Error::from_errno(errno, "make cgroup " + directory);
            }
        }
        if (!again) {
            return {};
        }
    }
}

std::vector<std::string> missing_directories(const std::string& mount_point,
                                             const std::string& path) {
    std::vector<std::string> missing;
    size_t at = 0;
    while (at != std::string::npos) {
        at = path.find('/', at + 1);
        std::string directory = mount_point + path.substr(0, at);
        if (!missing.empty() || !exists(directory)) {
            missing.push_back(std::move(directory));
        }
    }
    return missing;
}

std::vector<pid_t> processes_below(const std::string& directory) {
    std::vector<pid_t> pids;
    const auto text = read_file(directory + "/cgroup.procs");
    if (!text.ok()) {
        return pids;
    }
    for (const char* p = text->c_str(); *p != '\0';) {
        char* end;
        const long pid = strtol(p, &end, 10);
        if (end == p) {
            break;
        }
        if (pid > 0) {  // 0: a process of a pid namespace that we cannot see
            pids.push_back(static_cast<pid_t>(pid));
        }
        p = *end == '\n' ? end + 1 : end;
    }
    if (DIR* dir = ::opendir(directory.c_str())) {
        while (const dirent* entry = ::readdir(dir)) {
            if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
                const auto below = processes_below(directory + "/" + entry->d_name);
                pids.insert(pids.end(), below.begin(), below.end());
            }
        }
        ::closedir(dir);
    }
    return pids;
}

Status kill_below(const std::string& directory) {
    Backoff backoff(5000);
    for (;;) {
        const auto pids = processes_below(directory);
        if (pids.empty()) {
            return {};
        }
        for (const pid_t pid : pids) {
            ::kill(pid, SIGKILL);
        }
        if (!backoff.wait()) {
            return Error(ETIMEDOUT, "kill processes of cgroup " + directory + ": " +
                                        std::to_string(pids.size()) + " do not die, first is " +
                                        std::to_string(pids[0]));
        }
    }
}

bool Backoff::wait() {
    if (left_us_ <= 0) {
        return false;
    }
    const timespec pause{step_us_ / 1'000'000, step_us_ % 1'000'000 * 1000L};
    ::nanosleep(&pause, nullptr);
    left_us_ -= step_us_;
    step_us_ = std::min(step_us_ * 2, 50'000);
    return true;
}

}  // namespace moat::cgroups
