#include <errno.h>
#include <fcntl.h>

#include <algorithm>

#include "cgroups/cgroup.h"
#include "cgroups/files.h"
#include "cgroups/stats.h"

namespace moat::cgroups {

namespace {

/// A new cpuset is empty and takes no process until it has CPUs and memory nodes (cpusets(7)).
Status fill_cpuset(const std::string& directory) {
    const std::string parent = directory.substr(0, directory.rfind('/'));
    for (const char* file : {"/cpuset.cpus", "/cpuset.mems"}) {
        if (read_file(directory + file).value_or("\n") == "\n") {
            std::string value = TRY(read_file(parent + file));
            while (!value.empty() && value.back() == '\n') {
                value.pop_back();
            }
            TRY(write_file(directory + file, value));
        }
    }
    return {};
}

class V1 final : public Manager {
  public:
    explicit V1(std::vector<Hierarchy> hierarchies) : hierarchies_(std::move(hierarchies)) {}

    Version version() const override { return Version::kV1; }

    std::vector<std::string> missing(const std::string& path) const override {
        std::vector<std::string> all;
        for (const Hierarchy& h : hierarchies_) {
            const auto here = missing_directories(h.mount_point, path);
            all.insert(all.end(), here.begin(), here.end());
        }
        return all;
    }

    std::vector<std::string> directories(const std::string& path) const override {
        std::vector<std::string> all;
        for (const Hierarchy& h : hierarchies_) {
            all.push_back(h.mount_point + path);
        }
        return all;
    }

    Status make(const std::string& path) const override {
        for (const Hierarchy& h : hierarchies_) {
            const bool cpuset = has(h, "cpuset");
            TRY(make_directories(h.mount_point, path, cpuset ? fill_cpuset : nullptr));
        }
        return {};
    }

    Result<std::unique_ptr<LimitChange>> change_limits(const std::string& path,
                                                       const Limits& limits) const override {
        auto pending = std::make_unique<FileChanges>();
        FileChanges& changes = *pending;
        TRY(check_page_sizes(limits));
        if (limits.memory_bytes || limits.memory_swap_bytes) {
            TRY(set_memory(path, limits, changes));
        }
        if (limits.memory_reservation_bytes) {
            TRY(write(changes, "memory", path, "memory.soft_limit_in_bytes",
                      std::to_string(*limits.memory_reservation_bytes)));
        }
        if (limits.cpu_shares && *limits.cpu_shares != 0) {
            TRY(write(changes, "cpu", path, "cpu.shares", std::to_string(*limits.cpu_shares)));
        }
        // The kernel checks quota against the period that is set at that moment and against the
        // parent's ratio: an unlimited quota in between makes any order of the two acceptable.
        if (limits.cpu_period_us && *limits.cpu_period_us != 0) {
            const std::string quota =
                read_file(directory("cpu", path) + "/cpu.cfs_quota_us").value_or("-1");
            TRY(write(changes, "cpu", path, "cpu.cfs_quota_us", "-1"));
            TRY(write(changes, "cpu", path, "cpu.cfs_period_us",
                      std::to_string(*limits.cpu_period_us)));
            if (!limits.cpu_quota_us || *limits.cpu_quota_us == 0) {
                TRY(write(changes, "cpu", path, "cpu.cfs_quota_us", quota));
            }
        }
        if (limits.cpu_quota_us && *limits.cpu_quota_us != 0) {
            TRY(write(changes, "cpu", path, "cpu.cfs_quota_us",
                      std::to_string(*limits.cpu_quota_us)));
        }
        if (limits.cpuset_cpus && !limits.cpuset_cpus->empty()) {
            TRY(write(changes, "cpuset", path, "cpuset.cpus", *limits.cpuset_cpus));
        }
        if (limits.cpuset_mems && !limits.cpuset_mems->empty()) {
            TRY(write(changes, "cpuset", path, "cpuset.mems", *limits.cpuset_mems));
        }
        if (limits.pids) {
            TRY(write(changes, "pids", path, "pids.max",
                      *limits.pids > 0 ? std::to_string(*limits.pids) : "max"));
        }
        for (const auto& [size, bytes] : limits.huge_pages) {
            if (!directory("hugetlb", path).empty()) {
                TRY(write(changes, "hugetlb", path, "hugetlb." + size + ".limit_in_bytes",
                          std::to_string(bytes)));
            }
        }
        if (!limits.unified.empty()) {
            return Error(EINVAL,
                         "set limits: unified resources need cgroup v2, this machine has v1");
        }
        return std::unique_ptr<LimitChange>(std::move(pending));
    }

    Result<Statistics> statistics(const std::string& path) const override {
        static constexpr struct {
            const char* controller;
            void (*read)(const std::string& directory, Statistics& out);
        } kSources[] = {{"cpuacct", read_v1_cpuacct}, {"cpu", read_v1_cpu},
                        {"memory", read_v1_memory},   {"pids", read_v1_pids},
                        {"blkio", read_v1_blkio},     {"hugetlb", read_v1_hugetlb}};
        Statistics out;
        bool any = false;
        for (const auto& source : kSources) {
            if (const auto d = directory(source.controller, path); !d.empty() && exists(d)) {
                source.read(d, out);
                any = true;
            }
        }
        if (!any) {
            return Error(ENOENT, "read statistics of cgroup " + path + ": there is no such cgroup");
        }
        return out;
    }

    Result<ScopedFd> open_oom_count(const std::string& path) const override {
        const auto d = directory("memory", path);
        if (d.empty()) {
            return ScopedFd();
        }
        ScopedFd fd(::open((d + "/memory.oom_control").c_str(), O_RDONLY | O_CLOEXEC));
        if (!fd) {
            return Error::from_errno(errno, "open " + d + "/memory.oom_control");
        }
        return fd;
    }

    Result<std::vector<JoinFd>> open_join(const std::string& path) const override {
        std::vector<JoinFd> fds;
        for (const Hierarchy& h : hierarchies_) {
            const std::string file = h.mount_point + path + "/tasks";
            ScopedFd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
            if (!fd) {
                return Error::from_errno(errno, "open " + file);
            }
            fds.push_back({h.controllers[0], std::move(fd)});
        }
        return fds;
    }

    std::vector<pid_t> processes(const std::string& path) const override {
        return processes_below(any_directory(path));
    }

    Status freeze(const std::string& path) const override { return set_frozen(path, "FROZEN"); }
    Status thaw(const std::string& path) const override { return set_frozen(path, "THAWED"); }

    Status kill(const std::string& path) const override {
        // In the order of the hierarchies: a process that joined only some of them dies as well.
        for (const Hierarchy& h : hierarchies_) {
            if (has(h, "freezer")) {
                // A frozen process takes SIGKILL only after it is thawed.
                const std::string state = h.mount_point + path + "/freezer.state";
                if (exists(state)) {
                    TRY(write_file(state, "THAWED"));
                }
            }
        }
        for (const Hierarchy& h : hierarchies_) {
            TRY(kill_below(h.mount_point + path));
        }
        return {};
    }

  private:
    static bool has(const Hierarchy& h, const std::string& controller) {
        return std::find(h.controllers.begin(), h.controllers.end(), controller) !=
               h.controllers.end();
    }
    std::string directory(const std::string& controller, const std::string& path) const {
        for (const Hierarchy& h : hierarchies_) {
            if (has(h, controller)) {
                return h.mount_point + path;
            }
        }
        return "";
    }
    std::string any_directory(const std::string& path) const {
        for (const char* controller : {"pids", "memory", "cpu"}) {
            if (auto d = directory(controller, path); !d.empty()) {
                return d;
            }
        }
        return hierarchies_[0].mount_point + path;
    }
    Status write(FileChanges& changes, const std::string& controller, const std::string& path,
                 const std::string& file, const std::string& value) const {
        const std::string d = directory(controller, path);
        if (d.empty()) {
            return Error(ENOTSUP,
                         "set " + file + ": the " + controller + " controller is not mounted");
        }
        return changes.write(d + "/" + file, value);
    }

    /// The kernel wants memory <= memory+swap at every moment, so a rise begins with the sum.
    Status set_memory(const std::string& path, const Limits& limits, FileChanges& changes) const {
        const std::string d = directory("memory", path);
        if (d.empty()) {
            return Error(ENOTSUP, "set the memory limit: the memory controller is not mounted");
        }
        const std::string sum_file = "memory.memsw.limit_in_bytes";
        const bool counts_swap = exists(d + "/" + sum_file);
        std::optional<int64_t> sum = limits.memory_swap_bytes;
        if (sum && *sum == 0) {
            sum.reset();  // OCI: 0 is "not set"
        }
        if (limits.memory_bytes && *limits.memory_bytes == -1 && !sum) {
            sum = -1;  // no limit on memory cannot stand below a limit on the sum
        }
        if (!counts_swap) {
            sum.reset();
        }
        const bool has_memory = limits.memory_bytes && *limits.memory_bytes != 0;
        const auto set_sum = [&]() -> Status {
            return sum ? changes.write(d + "/" + sum_file, std::to_string(*sum)) : Status();
        };
        const auto set_own = [&]() -> Status {
            return has_memory ? changes.write(d + "/memory.limit_in_bytes",
                                              std::to_string(*limits.memory_bytes))
                              : Status();
        };
        const uint64_t now = read_number(d + "/" + sum_file);
        const bool sum_rises = sum && (*sum < 0 || static_cast<uint64_t>(*sum) > now);
        if (sum_rises) {
            TRY(set_sum());
            return set_own();
        }
        TRY(set_own());
        return set_sum();
    }

    Status set_frozen(const std::string& path, const std::string& wanted) const {
        const std::string d = directory("freezer", path);
        if (d.empty()) {
            return Error(ENOTSUP, "freeze " + path + ": the freezer controller is not mounted");
        }
        // v1 has no notification, and a freeze may hang half-way on a process that is just forking:
        // writing again makes the kernel try again.
        const bool freezing = wanted == "FROZEN";
        Backoff backoff(freezing ? kFreezeWaitMs : 5000);
        for (;;) {
            TRY(write_file(d + "/freezer.state", wanted));
            std::string state = TRY(read_file(d + "/freezer.state"));
            if (state == wanted + "\n") {
                return {};
            }
            if (!backoff.wait()) {
                if (freezing && state == "FREEZING\n") {
                    return {};  // whoever comes back to its program stops there
                }
                return Error(ETIMEDOUT, "freeze or thaw cgroup " + path + ": still " + state);
            }
        }
    }

    const std::vector<Hierarchy> hierarchies_;  // never empty
};

}  // namespace

std::unique_ptr<Manager> make_v1(std::vector<Hierarchy> hierarchies) {
    return std::make_unique<V1>(std::move(hierarchies));
}

}  // namespace moat::cgroups
