// Figures and limits, on made-up cgroup directories of both versions: plain files with what kernels
// write into them.

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cgroups/cgroup.h"
#include "cgroups/files.h"
#include "cgroups/stats.h"

// Ours aborts, doctest's reports.
#undef CHECK
#include <doctest/doctest.h>

using namespace moat::cgroups;

namespace {

/// A directory of files that is gone afterwards.
struct Tree {
    std::string root;
    Tree() {
        char name[] = "/tmp/moat-cgroups-XXXXXX";
        REQUIRE(mkdtemp(name) != nullptr);
        root = name;
    }
    ~Tree() { std::filesystem::remove_all(root); }
    void file(const std::string& path, const std::string& content) const {
        const std::string whole = root + "/" + path;
        std::filesystem::create_directories(whole.substr(0, whole.rfind('/')));
        std::ofstream(whole) << content;
    }
    /// First line; a plain file keeps the tail of what was longer.
    std::string first_line(const std::string& path) const {
        const std::string text = read_file(root + "/" + path).value_or("(none)");
        return text.substr(0, text.find('\n'));
    }
};

constexpr const char* kPressure =
    "some avg10=1.50 avg60=0.75 avg300=0.25 total=123456\n"
    "full avg10=0.50 avg60=0.25 avg300=0.00 total=23456\n";

void fill_v2(const Tree& tree) {
    tree.file("pod/web/cpu.stat",
              "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 10\n"
              "nr_throttled 4\nthrottled_usec 250000\n");
    tree.file("pod/web/cpu.weight", "100\n");
    tree.file("pod/web/cpu.max", "50000 100000\n");
    tree.file("pod/web/memory.current", "30000000\n");
    tree.file("pod/web/memory.peak", "40000000\n");
    tree.file("pod/web/memory.max", "67108864\n");
    tree.file("pod/web/memory.low", "1000\n");
    tree.file("pod/web/memory.stat",
              "anon 20000000\nfile 9000000\nkernel 900000\nfile_mapped 800000\n"
              "inactive_file 5000000\npgfault 77\npgmajfault 7\n");
    tree.file("pod/web/memory.swap.current", "4096\n");
    tree.file("pod/web/memory.swap.max", "8192\n");
    tree.file("pod/web/memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n");
    tree.file("pod/web/pids.current", "5\n");
    tree.file("pod/web/pids.max", "max\n");
    tree.file("pod/web/io.stat",
              "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n254:16 wbytes=1\n");
    tree.file("pod/web/hugetlb.2MB.current", "2097152\n");
    tree.file("pod/web/hugetlb.2MB.max", "max\n");
    tree.file("pod/web/hugetlb.2MB.rsvd.current", "0\n");
    tree.file("pod/web/cpu.pressure", kPressure);
    tree.file("pod/web/memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n");
}

}  // namespace

TEST_CASE("cgroup v2: every figure comes from its file, PSI and devices included") {
    const Tree tree;
    fill_v2(tree);
    const auto manager = make_v2(tree.root);
    const auto read = manager->statistics("/pod/web");
    REQUIRE(read.ok());
    const Statistics& s = *read;
    CHECK(s.cpu_usage_ns == 5'000'000'000);
    CHECK(s.cpu_user_ns == 3'000'000'000);
    CHECK(s.cpu_system_ns == 2'000'000'000);
    CHECK(s.cpu_periods == 10);
    CHECK(s.cpu_throttled_periods == 4);
    CHECK(s.cpu_throttled_ns == 250'000'000);
    CHECK(weight_from_shares(s.cpu_shares) == 100);
    CHECK(s.cpu_quota_us == 50000);
    CHECK(s.cpu_period_us == 100000);
    CHECK(s.memory_usage_bytes == 30000000);
    CHECK(s.memory_max_usage_bytes == 40000000);
    CHECK(s.memory_working_set_bytes == 25000000);
    CHECK(s.memory_rss_bytes == 20000000);
    CHECK(s.memory_cache_bytes == 9000000);
    CHECK(s.memory_kernel_bytes == 900000);
    CHECK(s.memory_mapped_file_bytes == 800000);
    CHECK(s.memory_limit_bytes == 67108864);
    CHECK(s.memory_reservation_bytes == 1000);
    CHECK(s.memory_limit_hits == 12);
    CHECK(s.page_faults == 77);
    CHECK(s.major_page_faults == 7);
    CHECK(s.swap_usage_bytes == 4096);
    CHECK(s.swap_limit_bytes == 8192);
    CHECK(s.oom_kills == 2);
    CHECK(s.pids == 5);
    CHECK(s.pids_limit == 0);
    REQUIRE(s.io.size() == 2);
    CHECK(s.io[0].major == 8);
    CHECK(s.io[0].read_bytes == 4096);
    CHECK(s.io[0].written_bytes == 8192);
    CHECK(s.io[0].reads == 1);
    CHECK(s.io[0].writes == 2);
    CHECK(s.io[1].minor == 16);
    CHECK(s.io[1].read_bytes == 0);
    CHECK(s.io[1].written_bytes == 1);
    REQUIRE(s.huge_pages.size() == 1);
    CHECK(s.huge_pages[0].size == "2MB");
    CHECK(s.huge_pages[0].usage_bytes == 2097152);
    CHECK_FALSE(s.huge_pages[0].max_usage_bytes.has_value());
    REQUIRE(s.cpu_pressure.has_value());
    CHECK(s.cpu_pressure->some.avg10 == 1.5);
    CHECK(s.cpu_pressure->some.total_us == 123456);
    REQUIRE(s.cpu_pressure->full.has_value());
    CHECK(s.cpu_pressure->full->avg60 == 0.25);
    CHECK(s.cpu_pressure->full->total_us == 23456);
    REQUIRE(s.memory_pressure.has_value());
    CHECK_FALSE(s.memory_pressure->full.has_value());
    CHECK_FALSE(s.io_pressure.has_value());  // no such file
    CHECK(manager->statistics("/pod/gone").error().code() == ENOENT);
}

TEST_CASE("cgroup v2: a limit that fails takes those before it back") {
    const Tree tree;
    fill_v2(tree);
    const auto manager = make_v2(tree.root);
    Limits limits;
    limits.memory_bytes = 99999999;
    limits.cpu_quota_us = 20000;
    limits.unified["no.such.file"] = "1";
    CHECK_FALSE(manager->set_limits("/pod/web", limits).ok());
    CHECK(tree.first_line("pod/web/memory.max") == "67108864");
    CHECK(tree.first_line("pod/web/cpu.max") == "50000 100000");
    limits.unified.clear();
    limits.huge_pages["2MB"] = 4194304;
    limits.huge_pages["1GB"] = 1 << 30;  // no such size here: passed over
    REQUIRE(manager->set_limits("/pod/web", limits).ok());
    CHECK(tree.first_line("pod/web/memory.max") == "99999999");
    CHECK(tree.first_line("pod/web/hugetlb.2MB.max") == "4194304");
    limits.huge_pages["../../x"] = 1;
    CHECK(manager->set_limits("/pod/web", limits).error().code() == EINVAL);
}

TEST_CASE("cgroup v2: a memory limit below what is in use is refused, not answered by kills") {
    const Tree tree;
    fill_v2(tree);
    Limits limits;
    limits.memory_bytes = 1000000;
    const auto set = make_v2(tree.root)->set_limits("/pod/web", limits);
    REQUIRE_FALSE(set.ok());
    CHECK(set.error().code() == EBUSY);
    CHECK(tree.first_line("pod/web/memory.max") == "67108864");
}

TEST_CASE("cgroup v1: the figures of all hierarchies come together") {
    const Tree tree;
    tree.file("cpuacct/pod/cpuacct.usage", "7000000000\n");
    tree.file("cpuacct/pod/cpuacct.usage_user", "6000000000\n");
    tree.file("cpuacct/pod/cpuacct.usage_sys", "1000000000\n");
    tree.file("cpu/pod/cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 1000\n");
    tree.file("cpu/pod/cpu.shares", "512\n");
    tree.file("cpu/pod/cpu.cfs_quota_us", "-1\n");
    tree.file("cpu/pod/cpu.cfs_period_us", "100000\n");
    tree.file("memory/pod/memory.usage_in_bytes", "1000000\n");
    tree.file("memory/pod/memory.max_usage_in_bytes", "2000000\n");
    tree.file("memory/pod/memory.limit_in_bytes", "4000000\n");
    tree.file("memory/pod/memory.soft_limit_in_bytes", "9223372036854771712\n");
    tree.file("memory/pod/memory.memsw.limit_in_bytes", "5000000\n");
    tree.file("memory/pod/memory.failcnt", "8\n");
    tree.file("memory/pod/memory.stat",
              "cache 1\ntotal_cache 200000\ntotal_rss 700000\ntotal_mapped_file 3000\n"
              "total_swap 12\ntotal_inactive_file 100000\ntotal_pgfault 9\ntotal_pgmajfault 1\n");
    tree.file("memory/pod/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n");
    tree.file("pids/pod/pids.current", "3\n");
    tree.file("pids/pod/pids.max", "64\n");
    tree.file("blkio/pod/blkio.throttle.io_service_bytes_recursive",
              "254:0 Read 4096\n254:0 Write 1024\n254:0 Sync 5120\n254:0 Total 5120\nTotal 5120\n");
    tree.file("blkio/pod/blkio.throttle.io_serviced_recursive",
              "254:0 Read 2\n254:0 Write 1\nTotal 3\n");
    tree.file("hugetlb/pod/hugetlb.2MB.usage_in_bytes", "0\n");
    tree.file("hugetlb/pod/hugetlb.2MB.max_usage_in_bytes", "4194304\n");
    std::vector<Hierarchy> hierarchies;
    for (const std::string name : {"cpuacct", "cpu", "memory", "pids", "blkio", "hugetlb"}) {
        hierarchies.push_back({tree.root + "/" + name, {name}});
    }
    const auto read = make_v1(hierarchies)->statistics("/pod");
    REQUIRE(read.ok());
    const Statistics& s = *read;
    CHECK(s.cpu_usage_ns == 7'000'000'000);
    CHECK(s.cpu_user_ns == 6'000'000'000);
    CHECK(s.cpu_system_ns == 1'000'000'000);
    CHECK(s.cpu_periods == 3);
    CHECK(s.cpu_throttled_ns == 1000);
    CHECK(s.cpu_shares == 512);
    CHECK(s.cpu_quota_us == 0);
    CHECK(s.memory_working_set_bytes == 900000);
    CHECK(s.memory_rss_bytes == 700000);
    CHECK(s.memory_cache_bytes == 200000);
    CHECK(s.memory_limit_bytes == 4000000);
    CHECK(s.memory_reservation_bytes == 0);
    CHECK(s.memory_limit_hits == 8);
    CHECK(s.swap_usage_bytes == 12);
    CHECK(s.swap_limit_bytes == 1000000);
    CHECK(s.oom_kills == 4);
    CHECK(s.pids == 3);
    CHECK(s.pids_limit == 64);
    REQUIRE(s.io.size() == 1);
    CHECK(s.io[0].read_bytes == 4096);
    CHECK(s.io[0].written_bytes == 1024);
    CHECK(s.io[0].reads == 2);
    CHECK(s.io[0].writes == 1);
    REQUIRE(s.huge_pages.size() == 1);
    CHECK(s.huge_pages[0].max_usage_bytes == 4194304);
    CHECK_FALSE(s.cpu_pressure.has_value());
}

TEST_CASE("cgroups: a pressure file that is cut short or foreign gives no figure") {
    const Tree tree;
    for (const char* text : {"", "some\n", "some avg10=x avg60=0 avg300=0 total=1\n", "full\n"}) {
        tree.file("p", text);
        CHECK_FALSE(read_pressure(tree.root + "/p").has_value());
    }
}

TEST_CASE("cgroup v1: changes that fail half-way are undone on the real hierarchies") {
    auto found = detect();
    REQUIRE(found.ok());
    if (geteuid() != 0 || (*found)->version() != Version::kV1) {
        MESSAGE("skipped: needs root and cgroup v1");
        return;
    }
    const Manager& manager = **found;
    const std::string path = "/moat-unit-changes-" + std::to_string(getpid());
    const auto made = manager.missing(path);
    REQUIRE(manager.make(path).ok());
    Limits limits;
    limits.memory_bytes = 64 << 20;
    limits.memory_swap_bytes = 128 << 20;
    limits.cpu_quota_us = 30000;
    limits.cpu_period_us = 100000;
    limits.cpu_shares = 300;
    REQUIRE(manager.set_limits(path, limits).ok());
    Limits wrong;
    wrong.memory_bytes = 256 << 20;
    wrong.memory_swap_bytes = 512 << 20;
    wrong.cpu_shares = 700;
    wrong.cpu_quota_us = 80000;
    wrong.cpu_period_us = 50000;
    wrong.cpuset_cpus = "4000";
    CHECK_FALSE(manager.set_limits(path, wrong).ok());
    const auto now = manager.statistics(path);
    REQUIRE(now.ok());
    CHECK(now->memory_limit_bytes == 64 << 20);
    CHECK(now->cpu_shares == 300);
    CHECK(now->cpu_quota_us == 30000);
    CHECK(now->cpu_period_us == 100000);
    CHECK(remove(made).ok());
}
