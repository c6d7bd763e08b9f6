#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "cgroups/cgroup.h"
#include "cgroups/files.h"

namespace moat::cgroups {

namespace {

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    size_t at = 0;
    for (;;) {
        const size_t end = text.find(separator, at);
        parts.push_back(text.substr(at, end == std::string::npos ? end : end - at));
        if (end == std::string::npos) {
            return parts;
        }
        at = end + 1;
    }
}

/// mountinfo writes space, tab, newline and backslash as octal escapes.
std::string unescape(const std::string& text) {
    std::string out;
    for (size_t i = 0; i < text.size(); i++) {
        if (text[i] == '\\' && i + 3 < text.size()) {
            out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                     (text[i + 3] - '0'));
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

constexpr const char* kControllers[] = {"cpu",      "cpuacct",    "cpuset", "memory",  "devices",
                                        "freezer",  "blkio",      "pids",   "hugetlb", "net_cls",
                                        "net_prio", "perf_event", "rdma",   "misc"};

/// Without any hierarchy: nothing is made, nothing limited, and limits that are asked for fail.
class NoCgroups final : public Manager {
  public:
    Version version() const override { return Version::kNone; }
    std::vector<std::string> missing(const std::string&) const override { return {}; }
    std::vector<std::string> directories(const std::string&) const override { return {}; }
    Status make(const std::string&) const override { return {}; }
    Result<std::unique_ptr<LimitChange>> change_limits(const std::string&,
                                                       const Limits& limits) const override {
        if (limits.memory_bytes.value_or(-1) > 0 || limits.cpu_quota_us.value_or(-1) > 0 ||
            limits.pids.value_or(-1) > 0) {
            return none("set limits");
        }
        return std::unique_ptr<LimitChange>(std::make_unique<FileChanges>());
    }
    Result<Statistics> statistics(const std::string&) const override {
        return none("read statistics");
    }
    Result<std::vector<JoinFd>> open_join(const std::string&) const override {
        return std::vector<JoinFd>();
    }
    Result<ScopedFd> open_oom_count(const std::string&) const override { return ScopedFd(); }
    std::vector<pid_t> processes(const std::string&) const override { return {}; }
    Status freeze(const std::string&) const override { return none("freeze"); }
    Status thaw(const std::string&) const override { return none("thaw"); }
    Status kill(const std::string&) const override { return {}; }

  private:
    static Error none(const char* step) {
        return Error(ENOTSUP, std::string(step) + ": no cgroup hierarchy is mounted");
    }
};

}  // namespace

Mounts parse_mountinfo(const std::string& text) {
    Mounts mounts;
    for (const std::string& line : split(text, '\n')) {
        const size_t dash = line.find(" - ");
        if (dash == std::string::npos) {
            continue;
        }
        const auto before = split(line.substr(0, dash), ' ');
        const auto after = split(line.substr(dash + 3), ' ');
        if (before.size() < 6 || after.size() < 3 || before[3] != "/") {
            continue;
        }
        const std::string mount_point = unescape(before[4]);
        if (after[0] == "cgroup2") {
            if (mounts.v2.empty()) {
                mounts.v2 = mount_point;
            }
        } else if (after[0] == "cgroup") {
            Hierarchy hierarchy{mount_point, {}};
            for (const std::string& option : split(after[2], ',')) {
                if (option == "name=systemd") {
                    hierarchy.controllers.push_back("systemd");
                } else if (std::find(std::begin(kControllers), std::end(kControllers), option) !=
                           std::end(kControllers)) {
                    hierarchy.controllers.push_back(option);
                }
            }
            const bool known = std::any_of(mounts.v1.begin(), mounts.v1.end(), [&](const auto& h) {
                return h.controllers == hierarchy.controllers;
            });
            if (!hierarchy.controllers.empty() && !known) {
                mounts.v1.push_back(std::move(hierarchy));
            }
        }
    }
    return mounts;
}

Result<std::unique_ptr<Manager>> detect() {
    const Mounts mounts = parse_mountinfo(TRY(read_file("/proc/self/mountinfo")));
    for (const Hierarchy& hierarchy : mounts.v1) {
        for (const std::string& controller : hierarchy.controllers) {
            if (controller == "cpu" || controller == "memory" || controller == "pids") {
                return make_v1(mounts.v1);
            }
        }
    }
    if (!mounts.v2.empty()) {
        return make_v2(mounts.v2);
    }
    return make_none();
}

std::unique_ptr<Manager> make_none() { return std::make_unique<NoCgroups>(); }

Status remove(const std::vector<std::string>& directories) {
    std::vector<std::string> deepest_first = directories;
    std::stable_sort(
        deepest_first.begin(), deepest_first.end(),
        [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
    Status first_error;
    // One budget for all of them: what is busy is busy with the same dying processes.
    Backoff backoff(2000);
    for (const std::string& directory : deepest_first) {
        for (;;) {
            if (::rmdir(directory.c_str()) == 0 || errno == ENOENT) {
                break;
            }
            const int error = errno;
            struct stat st;
            // A cgroup directory has two links and one more for each child.
            if (error == EBUSY && ::stat(directory.c_str(), &st) == 0 && st.st_nlink > 2) {
                break;
            }
            if (error != EBUSY || !backoff.wait()) {
                if (first_error.ok()) {
                    first_error = Error::from_errno(error, "remove cgroup " + directory);
                }
                break;
            }
        }
    }
    return first_error;
}

Result<std::string> normalize_path(const std::string& cgroups_path) {
    const auto invalid = [&](const char* why) {
        return Error(EINVAL, "cgroups path \"" + cgroups_path + "\": " + why);
    };
    std::string path = cgroups_path;
    const auto parts = split(cgroups_path, ':');
    if (parts.size() == 3) {
        std::string slice = parts[0].empty() ? "system.slice" : parts[0];
        if (slice == "-.slice") {
            slice.clear();
        }
        std::string directory;
        if (!slice.empty()) {
            constexpr std::string_view kSuffix = ".slice";
            if (slice.size() <= kSuffix.size() || !slice.ends_with(kSuffix) ||
                slice.find('/') != std::string::npos) {
                return invalid("expected SLICE.slice:PREFIX:NAME");
            }
            const std::string stem = slice.substr(0, slice.size() - kSuffix.size());
            // systemd: a-b.slice lies in a.slice.
            std::string prefix;
            for (const std::string& part : split(stem, '-')) {
                if (part.empty()) {
                    return invalid("a slice's name has an empty part");
                }
                prefix += (prefix.empty() ? "" : "-") + part;
                directory += "/" + prefix + std::string(kSuffix);
            }
        }
        if (parts[2].empty()) {
            return invalid("the name is empty");
        }
        const std::string unit = parts[2].ends_with(".slice") ? parts[2]
                                 : parts[1].empty()           ? parts[2] + ".scope"
                                                    : parts[1] + "-" + parts[2] + ".scope";
        path = directory + "/" + unit;
    }
    std::string clean;
    for (const std::string& part : split(path, '/')) {
        if (part == "..") {
            return invalid("\"..\" is not allowed");
        }
        if (!part.empty() && part != ".") {
            clean += "/" + part;
        }
    }
    if (clean.empty()) {
        return invalid("it names the hierarchy's root");
    }
    return clean;
}

uint64_t weight_from_shares(uint64_t shares) {
    if (shares <= 2) {
        return 1;
    }
    if (shares >= 262144) {
        return 10000;
    }
    const double l = std::log2(static_cast<double>(shares));
    return static_cast<uint64_t>(std::ceil(std::pow(10, (l * l + 125 * l) / 612.0 - 7.0 / 34.0)));
}

uint64_t shares_from_weight(uint64_t weight) {
    uint64_t low = 2, high = 262144;
    while (low < high) {
        const uint64_t middle = (low + high) / 2;
        if (weight_from_shares(middle) >= weight) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

}  // namespace moat::cgroups
