// Whole lives of sandboxes and containers, with the test doubles in the place of sentry and gofer;
// what is left behind is counted. Needs root.

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cgroups/cgroup.h"
#include "cgroups/files.h"
#include "runtime/sentry_runtime.h"
#include "runtime/spec/spec.h"
#include "runtime/util/files.h"

// Ours aborts, doctest's reports.
#undef CHECK
#include <doctest/doctest.h>

using namespace moat::runtime;
using Json = nlohmann::json;

namespace {

size_t count_entries(const char* path) {
    size_t n = 0;
    if (DIR* dir = opendir(path)) {
        while (readdir(dir) != nullptr) {
            n++;
        }
        closedir(dir);
    }
    return n;
}

size_t count_doubles() {
    size_t n = 0;
    DIR* dir = opendir("/proc");
    while (const dirent* entry = readdir(dir)) {
        char exe[PATH_MAX];
        const std::string link = std::string("/proc/") + entry->d_name + "/exe";
        const ssize_t length = readlink(link.c_str(), exe, sizeof exe);
        const std::string path(exe, length > 0 ? length : 0);
        n += path == FAKE_SENTRY || path == FAKE_GOFER;
    }
    closedir(dir);
    return n;
}

size_t count_mounts() {
    std::ifstream file("/proc/self/mountinfo");
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
}

/// What a test may not leave behind.
struct Traces {
    size_t fds = count_entries("/proc/self/fd");
    size_t doubles = count_doubles();
    size_t mounts = count_mounts();
    bool operator==(const Traces&) const = default;
};

struct World {
    std::string path;
    std::string cgroup = "/moat-unit-rt-" + std::to_string(getpid());
    Options options;
    Traces before;
    std::unique_ptr<SentryRuntime> runtime;

    World() {
        char name[] = "/tmp/moat-unit-XXXXXX";
        path = mkdtemp(name);
        options.state_root = path + "/state";
        options.sentry_path = FAKE_SENTRY;
        options.gofer_path = FAKE_GOFER;
        runtime = std::make_unique<SentryRuntime>(options);
        before = Traces();
    }
    ~World() {
        const Traces after;
        CHECK(after.fds == before.fds);
        CHECK(after.doubles == before.doubles);
        CHECK(after.mounts == before.mounts);
        const auto manager = moat::cgroups::detect();
        for (const std::string& directory : (*manager)->directories(cgroup)) {
            CAPTURE(directory);
            CHECK_FALSE(moat::cgroups::exists(directory));
        }
        CHECK(count_entries((path + "/state").c_str()) <= 2);
        CHECK(remove_tree(path).ok());
    }

    /// A bundle whose process does `args` (see fake_sentry.cc).
    std::string bundle(const std::string& id, const std::vector<std::string>& args,
                       const std::string& sandbox = "", const std::string& hostname = "box") {
        const std::string directory = path + "/" + id;
        mkdir(directory.c_str(), 0755);
        mkdir((directory + "/rootfs").c_str(), 0755);
        Json spec = Json::parse(default_spec());
        spec["process"]["terminal"] = false;
        spec["process"]["args"] = args;
        spec["hostname"] = hostname;
        spec["linux"]["cgroupsPath"] = cgroup + "/" + id;
        spec["linux"]["resources"]["pids"]["limit"] = 10;
        if (!sandbox.empty()) {
            spec["annotations"] = {{"io.kubernetes.cri.container-type", "container"},
                                   {"io.kubernetes.cri.sandbox-id", sandbox}};
        }
        std::ofstream(directory + "/config.json") << spec.dump(1);
        return directory;
    }
    CreateConfig config(const std::string& id, const std::vector<std::string>& args,
                        const std::string& sandbox = "", const std::string& hostname = "box") {
        CreateConfig c;
        c.id = id;
        c.bundle = bundle(id, args, sandbox, hostname);
        return c;
    }
    int sentry_pid(const std::string& id) { return runtime->state(id)->sentry_pid; }
};

bool root() {
    if (geteuid() != 0) {
        MESSAGE("skipped: needs root");
        return false;
    }
    return true;
}

#define REQUIRE_OK(expression)                                                        \
    do {                                                                              \
        const auto& checked_ = (expression);                                          \
        const std::string message_ = checked_.ok() ? "" : checked_.error().message(); \
        CAPTURE(message_);                                                            \
        REQUIRE(checked_.ok());                                                       \
    } while (0)

}  // namespace

TEST_CASE("container alone: create, start, wait, delete; output and exit code come through") {
    if (!root()) {
        return;
    }
    World w;
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    auto config = w.config("one", {"print", "hello", "7"});
    config.stdio.stdout_fd = ends[1];
    config.pid_file = w.path + "/pid";
    REQUIRE_OK(w.runtime->create(config));
    close(ends[1]);
    auto info = w.runtime->state("one");
    REQUIRE_OK(info);
    CHECK(info->state == ContainerState::kCreated);
    CHECK(info->sandbox_id == "one");
    std::string pid;
    std::ifstream(w.path + "/pid") >> pid;
    CHECK(pid == std::to_string(info->sentry_pid));

    // Each is in its cgroup: the sentry and the gofer beside the container, its process inside.
    const auto manager = moat::cgroups::detect();
    const std::string pod = w.cgroup + "/one";
    CHECK((*manager)->processes(pod + "/sentry").size() == 2);
    CHECK((*manager)->processes(pod + "/one").size() == 1);
    const auto stats = w.runtime->stats("one");
    REQUIRE_OK(stats);
    CHECK(stats->cpu_usage_ns > 0);              // from the cgroup
    CHECK(stats->writable_layer_bytes == 4096);  // from the sentry
    CHECK(stats->processes == 1);
    CHECK(stats->file_descriptors == 3);
    CHECK(stats->cgroup.ends_with("/one"));

    // Limits change together or not at all, also when it is the sentry that refuses.
    Resources resources;
    resources.memory_limit_bytes = 64 << 20;
    resources.cpu_shares = 300;
    resources.pids_limit = 20;
    REQUIRE_OK(w.runtime->update("one", resources));
    CHECK((*manager)->statistics(pod + "/one")->memory_limit_bytes == 64 << 20);
    CHECK((*manager)->statistics(pod + "/one")->pids_limit == 20 * 3 + 64);
    resources.memory_limit_bytes = 128 << 20;
    resources.pids_limit = 13;
    CHECK_FALSE(w.runtime->update("one", resources).ok());
    CHECK((*manager)->statistics(pod + "/one")->memory_limit_bytes == 64 << 20);
    CHECK((*manager)->statistics(pod + "/one")->pids_limit == 20 * 3 + 64);

    CHECK(w.runtime->remove("one").error().code() == EBUSY);
    REQUIRE_OK(w.runtime->start("one"));
    const auto exit = w.runtime->wait("one");
    REQUIRE_OK(exit);
    CHECK(exit->code == 7);
    char text[16] = {};
    CHECK(read(ends[0], text, sizeof text) == 5);
    CHECK(std::string(text) == "hello");
    close(ends[0]);
    CHECK(w.runtime->state("one")->state == ContainerState::kStopped);
    CHECK(w.runtime->list()->size() == 1);
    REQUIRE_OK(w.runtime->remove("one"));
    CHECK(w.runtime->state("one").error().code() == ENOENT);
    CHECK(w.runtime->remove("one").error().code() == ENOENT);
}

TEST_CASE("pod: two containers join a sandbox, one goes alone, the sandbox takes the other") {
    if (!root()) {
        return;
    }
    World w;
    SandboxConfig pod;
    pod.id = "pod";
    pod.hostname = "pod";
    pod.cgroup_parent = w.cgroup;
    REQUIRE_OK(w.runtime->create_sandbox(pod));
    CHECK(w.runtime->sandbox_alive("pod"));
    CHECK(w.runtime->create_sandbox(pod).error().code() == EEXIST);
    for (const char* id : {"a", "b"}) {
        REQUIRE_OK(w.runtime->create(w.config(id, {"pause"}, "pod")));
        REQUIRE_OK(w.runtime->start(id));
        CHECK(w.runtime->state(id)->state == ContainerState::kRunning);
        CHECK(w.runtime->state(id)->sentry_pid == w.sentry_pid("pod"));
    }
    ExecConfig exec;
    exec.args = {"print", "", "5"};
    const auto exec_id = w.runtime->exec("a", exec);
    REQUIRE_OK(exec_id);
    CHECK(w.runtime->wait_exec("a", *exec_id)->code == 5);
    REQUIRE_OK(w.runtime->kill("a", SIGTERM));
    CHECK(w.runtime->wait("a")->signal == SIGTERM);
    CHECK(w.runtime->kill("a", SIGTERM).error().code() == ESRCH);
    REQUIRE_OK(w.runtime->remove("a"));
    CHECK(w.runtime->sandbox_alive("pod"));
    CHECK(w.runtime->remove("pod").error().code() == EBUSY);
    REQUIRE_OK(w.runtime->destroy_sandbox("pod"));
    CHECK(w.runtime->state("b").error().code() == ENOENT);
    REQUIRE_OK(w.runtime->destroy_sandbox("pod"));
    CHECK(w.runtime->create(w.config("c", {"pause"}, "pod")).error().code() == ENOENT);
}

TEST_CASE("sentry killed: its containers report Stopped with 137, and go cleanly") {
    if (!root()) {
        return;
    }
    World w;
    REQUIRE_OK(w.runtime->create(w.config("one", {"pause"})));
    REQUIRE_OK(w.runtime->start("one"));
    const int pid = w.sentry_pid("one");
    REQUIRE(kill(pid, SIGKILL) == 0);
    CHECK(w.runtime->wait("one").error().code() == ECONNRESET);
    siginfo_t info;
    waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
    const auto state = w.runtime->state("one");
    REQUIRE_OK(state);
    CHECK(state->state == ContainerState::kStopped);
    REQUIRE(state->exit.has_value());
    CHECK(state->exit->shell_code() == 137);
    CHECK(w.runtime->state("one")->exit->finished_at_ns == state->exit->finished_at_ns);
    CHECK_FALSE(w.runtime->sandbox_alive("one"));
    CHECK(w.runtime->kill("one", SIGTERM).error().code() == ESRCH);
    REQUIRE_OK(w.runtime->remove("one"));
}

TEST_CASE("sentry that dies at boot: the error has the last words of its log, nothing is left") {
    if (!root()) {
        return;
    }
    World w;
    const auto status = w.runtime->create(w.config("one", {"pause"}, "", "crash"));
    REQUIRE_FALSE(status.ok());
    CAPTURE(status.error().message());
    CHECK(status.error().message().find("create one: boot the sentry: ") == 0);
    CHECK(status.error().message().find("asked to crash") != std::string::npos);
}

TEST_CASE("creation that fails early: each step is named, nothing is left") {
    if (!root()) {
        return;
    }
    World w;
    auto config = w.config("one", {"pause"});
    REQUIRE(rmdir((config.bundle + "/rootfs").c_str()) == 0);
    CHECK(w.runtime->create(config).error().message().find("create one: root: ") == 0);
    mkdir((config.bundle + "/rootfs").c_str(), 0755);
    Options wrong = w.options;
    wrong.sentry_path = "/nowhere/moat-sentry";
    CHECK(SentryRuntime(wrong).create(config).error().message().find("/nowhere/moat-sentry") !=
          std::string::npos);
    wrong = w.options;
    wrong.gofer_path = "/etc/passwd";
    const auto status = SentryRuntime(wrong).create(config);
    REQUIRE_FALSE(status.ok());
    CHECK(status.error().message().find("start moat-gofer: execute it") != std::string::npos);
    config.id = "../one";
    CHECK(w.runtime->create(config).error().code() == EINVAL);
}

TEST_CASE("hooks: they run in order with the state on stdin; one that fails undoes the creation") {
    if (!root()) {
        return;
    }
    World w;
    auto config = w.config("one", {"print", "", "0"});
    const std::string log = w.path + "/hooks.log";
    const auto hook = [&](const std::string& script) {
        return Json::array({{{"path", "/bin/sh"}, {"args", {"sh", "-c", script}}, {"timeout", 5}}});
    };
    Json spec = Json::parse(std::ifstream(config.bundle + "/config.json"));
    spec["hooks"] = {{"prestart", hook("echo prestart >> " + log + "; grep -q '\"id\": \"one\"'")},
                     {"createRuntime", hook("echo createRuntime >> " + log)},
                     {"poststart", hook("echo poststart >> " + log)},
                     {"poststop", hook("echo poststop >> " + log)}};
    std::ofstream(config.bundle + "/config.json") << spec.dump();
    REQUIRE_OK(w.runtime->create(config));
    REQUIRE_OK(w.runtime->start("one"));
    REQUIRE_OK(w.runtime->wait("one"));
    REQUIRE_OK(w.runtime->remove("one"));
    CHECK(read_whole_file(log).value() == "prestart\ncreateRuntime\npoststart\npoststop\n");

    spec["hooks"] = {{"createRuntime", hook("echo no device >&2; exit 3")}};
    std::ofstream(config.bundle + "/config.json") << spec.dump();
    const auto status = w.runtime->create(config);
    REQUIRE_FALSE(status.ok());
    CHECK(status.error().message() ==
          "create one: createRuntime hook /bin/sh: exit code 3: no device");
}

TEST_CASE("creator killed at any instant: what it left is removed by name") {
    if (!root()) {
        return;
    }
    World w;
    const auto config = w.config("one", {"pause"});
    timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    REQUIRE_OK(w.runtime->create(config));
    clock_gettime(CLOCK_MONOTONIC, &end);
    REQUIRE_OK(w.runtime->remove("one", true));
    const long took_ns = (end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec;
    int completed = 0;
    for (int i = 0; i < 20; i++) {
        // The moments are spread over what a creation takes; the test holds for every one of them.
        const pid_t creator = fork();
        if (creator == 0) {
            SentryRuntime runtime(w.options);
            _exit(runtime.create(config).ok() ? 0 : 1);
        }
        const timespec moment{0, std::min(i * took_ns / 16, 999999999L)};
        nanosleep(&moment, nullptr);
        kill(creator, SIGKILL);
        int status;
        waitpid(creator, &status, 0);
        completed += WIFEXITED(status) && WEXITSTATUS(status) == 0;
        const auto removed = w.runtime->remove("one", true);
        const std::string message = removed.ok() ? "" : removed.error().message();
        CAPTURE(i);
        CAPTURE(message);
        CHECK((removed.ok() || removed.error().code() == ENOENT));
    }
    MESSAGE("creations that were quicker: ", completed);
    // What was killed is not our child, and somebody else has to reap it first.
    for (int i = 0; i < 200 && count_doubles() != w.before.doubles; i++) {
        const timespec pause{0, 5000000};
        nanosleep(&pause, nullptr);
    }
}
