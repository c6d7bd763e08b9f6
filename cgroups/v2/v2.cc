#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "cgroups/cgroup.h"
#include "cgroups/files.h"
#include "cgroups/stats.h"

namespace moat::cgroups {

namespace {

class V2 final : public Manager {
  public:
    explicit V2(std::string mount_point) : mount_point_(std::move(mount_point)) {}

    Version version() const override { return Version::kV2; }

    std::vector<std::string> missing(const std::string& path) const override {
        return missing_directories(mount_point_, path);
    }

    std::vector<std::string> directories(const std::string& path) const override {
        return {mount_point_ + path};
    }

    Status make(const std::string& path) const override {
        TRY(make_directories(mount_point_, path, nullptr));
        // Controllers are passed on from the root down to the parent of the last one: processes
        // live in leaves only ("no internal processes", cgroups(7)).
        size_t at = 0;
        do {
            TRY(delegate(mount_point_ + path.substr(0, at)));
            at = path.find('/', at + 1);
        } while (at != std::string::npos);
        return {};
    }

    Result<std::unique_ptr<LimitChange>> change_limits(const std::string& path,
                                                       const Limits& limits) const override {
        const std::string d = mount_point_ + path + "/";
        auto pending = std::make_unique<FileChanges>();
        FileChanges& changes = *pending;
        TRY(check_page_sizes(limits));
        if (limits.memory_bytes && *limits.memory_bytes != 0) {
            TRY(make_room(d, *limits.memory_bytes));
            TRY(changes.write(d + "memory.max", max_or(*limits.memory_bytes)));
        }
        if (limits.memory_swap_bytes && *limits.memory_swap_bytes != 0) {
            TRY(set_swap(d, limits, changes));
        }
        if (limits.memory_reservation_bytes) {
            TRY(changes.write(d + "memory.low", max_or(*limits.memory_reservation_bytes)));
        }
        if (limits.cpu_shares && *limits.cpu_shares != 0) {
            TRY(changes.write(d + "cpu.weight",
                              std::to_string(weight_from_shares(*limits.cpu_shares))));
        }
        if (limits.cpu_quota_us || limits.cpu_period_us) {
            std::string value =
                limits.cpu_quota_us.value_or(-1) > 0 ? std::to_string(*limits.cpu_quota_us) : "max";
            if (!limits.cpu_quota_us) {
                const std::string now = read_file(d + "cpu.max").value_or("max");
                value = now.substr(0, now.find_first_of(" \n"));
            }
            if (limits.cpu_period_us && *limits.cpu_period_us != 0) {
                value += " " + std::to_string(*limits.cpu_period_us);
            }
            TRY(changes.write(d + "cpu.max", value));
        }
        if (limits.cpuset_cpus && !limits.cpuset_cpus->empty()) {
            TRY(changes.write(d + "cpuset.cpus", *limits.cpuset_cpus));
        }
        if (limits.cpuset_mems && !limits.cpuset_mems->empty()) {
            TRY(changes.write(d + "cpuset.mems", *limits.cpuset_mems));
        }
        if (limits.pids) {
            TRY(changes.write(d + "pids.max",
                              *limits.pids > 0 ? std::to_string(*limits.pids) : "max"));
        }
        for (const auto& [size, bytes] : limits.huge_pages) {
            if (exists(d + "hugetlb." + size + ".max")) {
                TRY(changes.write(d + "hugetlb." + size + ".max", std::to_string(bytes)));
            }
        }
        for (const auto& [file, value] : limits.unified) {
            if (file.find('/') != std::string::npos) {
                return Error(EINVAL, "set limits: unified \"" + file + "\" is not a file name");
            }
            TRY(changes.write(d + file, value));
        }
        return std::unique_ptr<LimitChange>(std::move(pending));
    }

    Result<Statistics> statistics(const std::string& path) const override {
        if (!exists(mount_point_ + path)) {
            return Error(ENOENT, "read statistics of cgroup " + path + ": there is no such cgroup");
        }
        Statistics out;
        read_v2(mount_point_ + path, out);
        return out;
    }

    Result<std::vector<JoinFd>> open_join(const std::string& path) const override {
        const std::string file = mount_point_ + path + "/cgroup.procs";
        ScopedFd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
        if (!fd) {
            return Error::from_errno(errno, "open " + file);
        }
        std::vector<JoinFd> fds;
        fds.push_back({"unified", std::move(fd)});
        return fds;
    }

    Result<ScopedFd> open_oom_count(const std::string& path) const override {
        const std::string file = mount_point_ + path + "/memory.events";
        ScopedFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
        if (!fd && errno != ENOENT) {
            return Error::from_errno(errno, "open " + file);
        }
        return fd;
    }

    std::vector<pid_t> processes(const std::string& path) const override {
        return processes_below(mount_point_ + path);
    }

    Status freeze(const std::string& path) const override { return set_frozen(path, true); }
    Status thaw(const std::string& path) const override { return set_frozen(path, false); }

    Status kill(const std::string& path) const override {
        const std::string d = mount_point_ + path;
        if (exists(d + "/cgroup.kill")) {
            TRY(write_file(d + "/cgroup.kill", "1"));
        }
        return kill_below(d);
    }

  private:
    static std::string max_or(int64_t value) { return value < 0 ? "max" : std::to_string(value); }

    /// Turns on for the children of `directory` whatever it has of what we use.
    static Status delegate(const std::string& directory) {
        const std::string has = TRY(read_file(directory + "/cgroup.controllers"));
        const std::string on = TRY(read_file(directory + "/cgroup.subtree_control"));
        std::string wanted;
        for (const std::string name : {"cpu", "cpuset", "memory", "pids", "io", "hugetlb"}) {
            if (word_in(has, name) && !word_in(on, name)) {
                wanted += (wanted.empty() ? "+" : " +") + name;
            }
        }
        return wanted.empty() ? Status()
                              : write_file(directory + "/cgroup.subtree_control", wanted);
    }
    static bool word_in(std::string text, const std::string& word) {
        for (char& c : text) {
            c = c == '\n' ? ' ' : c;
        }
        return (" " + text + " ").find(" " + word + " ") != std::string::npos;
    }

    /// A limit below what is in use would have the kernel kill for it, where v1 says EBUSY: what
    /// can be taken back is, and then so do we.
    static Status make_room(const std::string& d, int64_t limit) {
        const auto wanted = static_cast<uint64_t>(limit);
        uint64_t usage = read_number(d + "memory.current");
        if (limit < 0 || usage <= wanted) {
            return {};
        }
        (void)write_file(d + "memory.reclaim", std::to_string(usage - wanted));  // EAGAIN: not all
        usage = read_number(d + "memory.current");
        return usage <= wanted
                   ? Status()
                   : Error(EBUSY, "set limits: memory limit " + std::to_string(limit) +
                                      " is below what is in use, " + std::to_string(usage));
    }

    /// OCI's number is the sum; v2 wants swap alone.
    static Status set_swap(const std::string& d, const Limits& limits, FileChanges& changes) {
        const int64_t sum = *limits.memory_swap_bytes;
        if (!exists(d + "memory.swap.max")) {
            return {};  // a kernel without swap accounting: the sum holds by memory.max
        }
        if (sum < 0) {
            return changes.write(d + "memory.swap.max", "max");
        }
        const int64_t memory =
            limits.memory_bytes.value_or(static_cast<int64_t>(read_number(d + "memory.max")));
        if (memory <= 0 || sum < memory) {
            return Error(EINVAL, "set limits: memory and swap together (" + std::to_string(sum) +
                                     ") must not be less than the memory limit");
        }
        return changes.write(d + "memory.swap.max", std::to_string(sum - memory));
    }

    Status set_frozen(const std::string& path, bool frozen) const {
        const std::string d = mount_point_ + path;
        ScopedFd events(::open((d + "/cgroup.events").c_str(), O_RDONLY | O_CLOEXEC));
        if (!events) {
            return Error::from_errno(errno, "open " + d + "/cgroup.events");
        }
        TRY(write_file(d + "/cgroup.freeze", frozen ? "1" : "0"));
        for (;;) {
            char text[512];
            const ssize_t n = ::pread(events.get(), text, sizeof text - 1, 0);
            if (n < 0) {
                return Error::from_errno(errno, "read " + d + "/cgroup.events");
            }
            if ((flat_value(std::string(text, n), "frozen") != 0) == frozen) {
                return {};
            }
            pollfd p{events.get(), POLLPRI, 0};
            if (::poll(&p, 1, frozen ? kFreezeWaitMs : 5000) == 0) {
                if (frozen) {
                    return {};  // whoever comes back to its program stops there
                }
                return Error(ETIMEDOUT, "thaw cgroup " + path + ": its processes do not go on");
            }
        }
    }

    const std::string mount_point_;
};

}  // namespace

std::unique_ptr<Manager> make_v2(std::string mount_point) {
    return std::make_unique<V2>(std::move(mount_point));
}

}  // namespace moat::cgroups
