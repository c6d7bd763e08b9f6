// On the machine's real hierarchies, below a parent of our own that is gone afterwards.

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroups/cgroup.h"
#include "cgroups/files.h"

// Ours aborts, doctest's reports.
#undef CHECK
#include <doctest/doctest.h>

using namespace moat::cgroups;

namespace {

/// The machine's v1 manager, or null with a printed reason.
std::unique_ptr<Manager> v1_manager() {
    auto found = detect();
    REQUIRE(found.ok());
    if (geteuid() != 0 || (*found)->version() != Version::kV1) {
        MESSAGE("skipped: needs root and cgroup v1");
        return nullptr;
    }
    return std::move(found).value();
}

struct Tree {
    Manager& manager;
    std::string path;
    std::vector<std::string> made;

    Tree(Manager& m, const std::string& p) : manager(m), path(p), made(m.missing(p)) {
        const auto result = manager.make(path);
        CAPTURE((result.ok() ? std::string() : result.error().message()));
        REQUIRE(result.ok());
    }
    ~Tree() {
        CHECK(manager.kill(path).ok());
        CHECK(remove(made).ok());
        for (const std::string& directory : made) {
            CHECK_FALSE(exists(directory));
        }
    }
};

std::string unique_path() { return "/moat-unit-" + std::to_string(getpid()); }

/// A child that has joined and waits for its end.
pid_t joined_child(const Manager& manager, const std::string& path) {
    const auto fds = manager.open_join(path);
    REQUIRE(fds.ok());
    int ready[2];
    REQUIRE(pipe(ready) == 0);
    const pid_t pid = fork();
    if (pid == 0) {
        char answer = 'y';
        for (const auto& fd : *fds) {
            answer = ::write(fd.fd.get(), "0", 1) == 1 ? answer : 'n';
        }
        [[maybe_unused]] const ssize_t n = ::write(ready[1], &answer, 1);
        for (;;) {
            pause();
        }
    }
    char answer = 0;
    CHECK(::read(ready[0], &answer, 1) == 1);
    CHECK(answer == 'y');
    ::close(ready[0]);
    ::close(ready[1]);
    return pid;
}

}  // namespace

TEST_CASE(
    "cgroup v1: a new cgroup stands in every hierarchy, and removal takes just what was made") {
    const auto manager = v1_manager();
    if (!manager) {
        return;
    }
    const std::string parent = unique_path();
    Tree outer(*manager, parent);
    {
        Tree inner(*manager, parent + "/pod/web");
        CHECK(inner.made.size() == 2 * manager->directories("/x").size());
        for (const std::string& directory : manager->directories(parent + "/pod/web")) {
            CHECK(exists(directory));
        }
    }
    for (const std::string& directory : outer.made) {
        CHECK(exists(directory));  // not the inner one's to take
    }
}

TEST_CASE("cgroup v1: a parent that others use survives the removal of the list that names it") {
    const auto manager = v1_manager();
    if (!manager) {
        return;
    }
    const std::string parent = unique_path();
    Tree first(*manager, parent + "/a");
    Tree second(*manager, parent + "/b");
    // `first` made the parent; removing its list now must leave the parent to `second`.
    CHECK(remove(first.made).ok());
    CHECK(exists(second.made[0]));
    REQUIRE(manager->make(parent + "/a").ok());
    CHECK(remove(second.made).ok());
}

TEST_CASE("cgroup v1: limits read back as they were set, and rise and fall") {
    const auto manager = v1_manager();
    if (!manager) {
        return;
    }
    Tree tree(*manager, unique_path());
    for (const int64_t megabytes : {64, 256, 32}) {
        Limits limits;
        limits.memory_bytes = megabytes << 20;
        limits.memory_swap_bytes = megabytes << 20;
        limits.cpu_quota_us = 50000;
        limits.cpu_period_us = 100000;
        limits.cpu_shares = 512;
        limits.pids = 100;
        const auto result = manager->set_limits(tree.path, limits);
        CAPTURE((result.ok() ? std::string() : result.error().message()));
        REQUIRE(result.ok());
        const auto stats = manager->statistics(tree.path);
        REQUIRE(stats.ok());
        CHECK(stats->memory_limit_bytes == static_cast<uint64_t>(megabytes << 20));
    }
    Limits none;
    none.memory_bytes = -1;
    none.cpu_quota_us = -1;
    none.pids = -1;
    CHECK(manager->set_limits(tree.path, none).ok());
    CHECK(manager->statistics(tree.path)->memory_limit_bytes == 0);
    Limits wrong;
    wrong.cpuset_cpus = "999";
    const auto refused = manager->set_limits(tree.path, wrong);
    REQUIRE_FALSE(refused.ok());
    CHECK(refused.error().message().find("cpuset.cpus") != std::string::npos);
}

TEST_CASE("cgroup v1: a process joins by itself, is counted, frozen, thawed and killed") {
    const auto manager = v1_manager();
    if (!manager) {
        return;
    }
    Tree tree(*manager, unique_path());
    const pid_t child = joined_child(*manager, tree.path);
    CHECK(manager->processes(tree.path) == std::vector<pid_t>{child});
    CHECK(manager->statistics(tree.path)->pids == 1);
    CHECK(manager->freeze(tree.path).ok());
    CHECK(manager->thaw(tree.path).ok());
    CHECK(manager->freeze(tree.path).ok());
    // A frozen process dies as well. It is ours to reap, and leaves the cgroup only then.
    ::signal(SIGCHLD, SIG_IGN);
    CHECK(manager->kill(tree.path).ok());
    ::signal(SIGCHLD, SIG_DFL);
    CHECK(manager->processes(tree.path).empty());
}

TEST_CASE("cgroup v1: statistics of what is not there say so") {
    const auto manager = v1_manager();
    if (!manager) {
        return;
    }
    const auto stats = manager->statistics("/moat-unit-nobody");
    REQUIRE_FALSE(stats.ok());
    CHECK(stats.error().code() == ENOENT);
}
