// What the native handler decides without a runc: its config.json, its records, its monitors'
// output.

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "runtime/native/monitor/streams.h"
#include "runtime/native/native_runtime.h"
#include "runtime/native/spec.h"
#include "runtime/util/files.h"
#include "unit/runtime/temp_dir.h"

using namespace moat::runtime;
using moat::ScopedFd;
using moat::monitor::Streams;
using nlohmann::json;

namespace {

json transform(NativePod pod, const json& namespaces) {
    pod.pause.pid = 77;
    NativeContainer container;
    container.bundle = "/b";
    container.cgroup = "/pods/p1/c1";
    const json resources = {{"hugepageLimits", {{{"pageSize", "2MB"}, {"limit", 4 << 20}}}},
                            {"cpu", {{"shares", 2}}}};
    const json config = {{"root", {{"path", "/images/root"}, {"readonly", true}}},
                         {"hostname", "web"},
                         {"linux", {{"namespaces", namespaces}, {"resources", resources}}}};
    const auto spec = native_spec(config.dump(), pod, container);
    REQUIRE(spec.ok());
    CHECK(spec->lower == "/images/root");
    CHECK(spec->huge_pages == std::map<std::string, uint64_t>{{"2MB", 4 << 20}});
    return json::parse(spec->config);
}

const json kNamespaces = {{{"type", "ipc"}},
                          {{"type", "uts"}},
                          {{"type", "mount"}},
                          {{"type", "pid"}},
                          {{"type", "network"}}};

struct Pipe {
    ScopedFd read_end, write_end;
    Pipe() {
        int fds[2];
        REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
        read_end.reset(fds[0]);
        write_end.reset(fds[1]);
    }
    void put(const std::string& text) {
        REQUIRE(write(write_end.get(), text.data(), text.size()) ==
                static_cast<ssize_t>(text.size()));
    }
    std::string take() {
        char buffer[65536];
        const ssize_t n = read(read_end.get(), buffer, sizeof buffer);
        return std::string(buffer, n > 0 ? static_cast<size_t>(n) : 0);
    }
};

void turn(Streams& streams) {
    std::vector<pollfd> fds;
    streams.prepare(fds);
    poll(fds.data(), fds.size(), 0);
    streams.handle(fds.data());
}

}  // namespace

TEST_CASE("native spec: a pod's user namespace is its pause process's") {
    NativePod pod;
    pod.network_namespace = "/netns/p1";
    pod.mapped_root = MappedRoot{200000, 300000};
    const json spec = transform(pod, {{{"type", "user"}}, {{"type", "mount"}}});
    CHECK(spec["linux"]["namespaces"][0]["path"] == "/proc/77/ns/user");
    const TempDir directory;
    REQUIRE(pod.save(directory.path).ok());
    const auto loaded = NativePod::load(directory.path);
    REQUIRE(loaded.ok());
    REQUIRE(loaded->mapped_root);
    CHECK(loaded->mapped_root->uid == 200000);
    CHECK(loaded->mapped_root->gid == 300000);
}

TEST_CASE("native spec: a pod's containers share its pause process's namespaces") {
    NativePod pod;
    pod.network_namespace = "/ns/p1";
    const json spec = transform(pod, kNamespaces);
    CHECK(spec["linux"]["namespaces"] == json({{{"type", "ipc"}, {"path", "/proc/77/ns/ipc"}},
                                               {{"type", "uts"}, {"path", "/proc/77/ns/uts"}},
                                               {{"type", "mount"}},
                                               {{"type", "pid"}},
                                               {{"type", "network"}, {"path", "/ns/p1"}}}));
    CHECK(spec["linux"]["cgroupsPath"] == "/pods/p1/c1");
    CHECK(spec["linux"]["resources"] == json({{"cpu", {{"shares", 2}}}}));
    CHECK(spec["root"] == json({{"path", "/b/rootfs"}, {"readonly", true}}));
    CHECK_FALSE(spec.contains("hostname"));
}

TEST_CASE("native spec: a pod of the node's network and ipc has no namespaces of those kinds") {
    NativePod pod;
    pod.host_ipc = true;
    CHECK(transform(pod, kNamespaces)["linux"]["namespaces"] ==
          json({{{"type", "mount"}}, {{"type", "pid"}}}));
    CHECK(native_spec("{", pod, NativeContainer()).error().code() == EINVAL);
}

TEST_CASE("native records survive being written, and a missing one is ENOENT") {
    TempDir directory;
    NativePod pod;
    pod.id = "p1";
    pod.cgroup = "/x/p1";
    pod.cgroup_directories = {"/sys/a", "/sys/b"};
    pod.host_ipc = true;
    pod.pause = {12, 345};
    REQUIRE(pod.save(directory.path).ok());
    const auto again = NativePod::load(directory.path);
    REQUIRE(again.ok());
    CHECK(again->cgroup_directories == pod.cgroup_directories);
    CHECK(again->pause.start_time == 345);
    CHECK(again->host_ipc);
    CHECK(NativeContainer::load(directory.path + "/none").error().code() == ENOENT);

    CHECK_FALSE(read_exit(directory.path, "c1"));
    REQUIRE(write_exit(directory.path, "c1", ExitStatus{0, 9, true, 5}).ok());
    const auto exit = read_exit(directory.path, "c1");
    REQUIRE(exit);
    CHECK(exit->shell_code() == 137);
    CHECK(exit->oom_killed);
    CHECK(read_monitor(directory.path, "c1").pid == 0);
}

TEST_CASE("native: the program that is configured must be one") {
    CHECK(NativeRuntime::find_program("runc").error().code() == EINVAL);
    CHECK(NativeRuntime::find_program("/nowhere/runc").error().code() == ENOENT);
    CHECK(NativeRuntime::find_program("/bin/sh").value() == "/bin/sh");
}

TEST_CASE("monitor: output goes to the log as lines and to who is attached as it is") {
    Pipe log, out, attached;
    Streams streams{ScopedFd(dup(log.write_end.get()))};
    streams.set_output(moat::LogStream::kStdout, std::move(out.read_end));
    streams.attach(ScopedFd(), std::move(attached.write_end), ScopedFd());
    out.put("one\ntw");
    turn(streams);
    CHECK(attached.take() == "one\ntw");
    CHECK(log.take().find(" stdout F one\n") != std::string::npos);
    out.put("o\nrest");
    turn(streams);
    out.write_end.reset();
    turn(streams);
    CHECK(streams.ended());
    const std::string lines = log.take();
    CHECK(lines.find(" stdout F two\n") != std::string::npos);
    CHECK(lines.find(" stdout P rest\n") != std::string::npos);
    turn(streams);
    CHECK(streams.delivered());
    CHECK(attached.take() == "o\nrest");
    CHECK(attached.take().empty());  // the end
}

TEST_CASE("monitor: one who attaches and does not read holds the container up, not its log") {
    Pipe log, out, attached;
    Streams streams{ScopedFd(open("/dev/null", O_WRONLY))};
    fcntl(out.write_end.get(), F_SETFL, O_NONBLOCK);
    streams.set_output(moat::LogStream::kStdout, std::move(out.read_end));
    streams.attach(ScopedFd(), std::move(attached.write_end), ScopedFd());
    size_t written = 0;
    const std::string text(4096, 'x');
    for (int round = 0; round < 200; round++) {
        const ssize_t n = write(out.write_end.get(), text.data(), text.size());
        written += n > 0 ? static_cast<size_t>(n) : 0;
        turn(streams);
    }
    // Two pipes and what may wait between them.
    CHECK(written < 200 * text.size());
    size_t read_back = 0;
    for (int round = 0; round < 400 && read_back < written; round++) {
        read_back += attached.take().size();
        turn(streams);
    }
    CHECK(read_back == written);
}

TEST_CASE("monitor: the end of the first attached input is the container's, if it is to be") {
    for (const bool once : {false, true}) {
        CAPTURE(once);
        Pipe in, first, log;
        Streams streams{ScopedFd()};
        fcntl(in.read_end.get(), F_SETFL, O_NONBLOCK);
        streams.set_input(std::move(in.write_end), once);
        streams.attach(std::move(first.read_end), ScopedFd(), ScopedFd());
        first.put("hello");
        turn(streams);
        CHECK(in.take() == "hello");
        first.write_end.reset();
        turn(streams);
        CHECK(streams.takes_input() != once);
    }
}
