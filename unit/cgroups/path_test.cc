#include "cgroups/cgroup.h"
#include "cgroups/files.h"

// Ours aborts, doctest's reports.
#undef CHECK
#include <doctest/doctest.h>

using namespace moat::cgroups;

TEST_CASE("cgroups path: both of OCI's forms become one path below the hierarchy's root") {
    CHECK(normalize_path("/a/b").value() == "/a/b");
    CHECK(normalize_path("a//b/./c/").value() == "/a/b/c");
    CHECK(normalize_path("kubepods-burstable.slice:cri:web").value() ==
          "/kubepods.slice/kubepods-burstable.slice/cri-web.scope");
    CHECK(normalize_path("-.slice:cri:web").value() == "/cri-web.scope");
    CHECK(normalize_path(":cri:web").value() == "/system.slice/cri-web.scope");
    CHECK(normalize_path("test.slice::web").value() == "/test.slice/web.scope");
}

TEST_CASE("cgroups path: what would leave the tree or name nothing is refused") {
    for (const char* bad : {"/a/../b", "..", "/", "", "a--b.slice:p:n", "noslice:p:n",
                            "a.slice:p:", "a/b.slice:p:n"}) {
        CAPTURE(bad);
        const auto result = normalize_path(bad);
        REQUIRE_FALSE(result.ok());
        CHECK(result.error().code() == EINVAL);
    }
}

TEST_CASE("cgroup weight: the curve meets its three fixed points and rises") {
    CHECK(weight_from_shares(2) == 1);
    CHECK(weight_from_shares(1024) == 100);
    CHECK(weight_from_shares(262144) == 10000);
    CHECK(weight_from_shares(0) == 1);
    for (uint64_t shares = 2; shares < 262144; shares *= 2) {
        CHECK(weight_from_shares(shares) <= weight_from_shares(shares * 2));
    }
}

TEST_CASE("mountinfo: hierarchies are told by their options, binds of parts are passed over") {
    const auto mounts = parse_mountinfo(
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 /inner /elsewhere rw - cgroup cgroup rw,memory\n"
        "36 31 0:32 / /sys/fs/cg\\040x/memory rw shared:1 - cgroup cgroup rw,memory\n"
        "37 31 0:32 / /again rw - cgroup cgroup rw,memory\n"
        "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "27 1 254:0 / / rw - ext4 /dev/vda rw,cpu\nnonsense\n");
    REQUIRE(mounts.v1.size() == 3);
    CHECK(mounts.v1[0].controllers == std::vector<std::string>{"cpu", "cpuacct"});
    CHECK(mounts.v1[1].mount_point == "/sys/fs/cg x/memory");
    CHECK(mounts.v1[2].controllers == std::vector<std::string>{"systemd"});
    CHECK(mounts.v2 == "/sys/fs/cgroup/unified");
}

TEST_CASE("flat-keyed file: only the whole key counts") {
    const std::string text = "oom_kill_disable 9\nunder_oom 0\noom_kill 3\n";
    CHECK(flat_value(text, "oom_kill") == 3);
    CHECK(flat_value(text, "oom") == 0);
    CHECK(flat_value("", "oom_kill") == 0);
}
