#include <sys/socket.h>
#include <unistd.h>

#include "kernel/control/messages.h"

// Ours aborts, doctest's reports.
#undef CHECK
#include <doctest/doctest.h>

using namespace moat;
using namespace moat::control;

namespace {

struct Pair {
    ScopedFd a, b;
    Pair() {
        int ends[2];
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        a.reset(ends[0]);
        b.reset(ends[1]);
    }
};

}  // namespace

TEST_CASE("control message: body and descriptors arrive together and in order") {
    Pair pair;
    int pipes[2];
    REQUIRE(pipe(pipes) == 0);
    const ScopedFd read_end(pipes[0]), write_end(pipes[1]);
    REQUIRE(send_message(pair.a.get(), {{"method", "x"}}, {read_end.get(), write_end.get()}).ok());
    REQUIRE(send_message(pair.a.get(), {{"method", "y"}}).ok());
    auto first = receive_message(pair.b.get());
    REQUIRE(first.ok());
    CHECK(get_string(first->body, "method") == "x");
    REQUIRE(first->fds.size() == 2);
    REQUIRE(write(first->fds[1].get(), "!", 1) == 1);
    char byte = 0;
    CHECK(read(first->fds[0].get(), &byte, 1) == 1);
    CHECK(byte == '!');
    CHECK(get_string(receive_message(pair.b.get())->body, "method") == "y");
    pair.a.reset();
    CHECK(receive_message(pair.b.get()).error() == ECONNRESET);
}

TEST_CASE("control message: what is not one is refused, whatever it claims") {
    const std::pair<std::string, int> cases[] = {
        {std::string("\x03\0\0\0[1]", 7), EBADMSG},        // JSON, but no object
        {std::string("\x02\0\0\0{[", 6), EBADMSG},         // no JSON
        {std::string("\xff\xff\xff\xff{}", 6), EMSGSIZE},  // 4 GiB
        {std::string("\x08\0\0\0{}", 6), ECONNRESET},      // cut short
        {std::string("\x08\0", 2), ECONNRESET},
    };
    for (const auto& [bytes, code] : cases) {
        Pair pair;
        REQUIRE(write(pair.a.get(), bytes.data(), bytes.size()) ==
                static_cast<ssize_t>(bytes.size()));
        pair.a.reset();
        const auto result = receive_message(pair.b.get());
        REQUIRE_FALSE(result.ok());
        CHECK(result.error().value() == code);
    }
}

TEST_CASE("control plans: a container's plan survives the way there") {
    ContainerPlan plan;
    plan.id = "web";
    plan.root.read_only = true;
    plan.pid_namespace = PidNamespace::kPod;
    plan.limits.pids = ~0ull;
    plan.mounts.push_back({"/data", "gofer", "/src", 3, true, true, false, true, {"a", "b"}});
    plan.process.args = {"sh", "-c", "echo"};
    plan.process.capabilities.bounding = 0x1ffffffffffull;
    plan.process.rlimits.push_back({"RLIMIT_NOFILE", 5, ~0ull});
    plan.process.stdout_kind = StdioKind::kCriLog;
    plan.process.umask = 077;
    const auto back = container_plan_from_json(to_json(plan));
    REQUIRE(back.ok());
    CHECK(to_json(*back) == to_json(plan));
    CHECK(back->process.rlimits[0].hard == ~0ull);
    CHECK(back->mounts[0].gofer_mount == 3);
}

TEST_CASE("control plans: ill-typed fields and numbers that do not fit are refused") {
    const Json good = to_json(ContainerPlan());
    for (const auto& [path, value] :
         std::vector<std::pair<const char*, Json>>{{"/id", 7},
                                                   {"/root", "x"},
                                                   {"/root/overlay", 1},
                                                   {"/mounts", Json::object()},
                                                   {"/pid_namespace", "host"},
                                                   {"/process/uid", -1},
                                                   {"/process/uid", 1ull << 32},
                                                   {"/process/umask", 01000},
                                                   {"/process/args", Json::array({1})},
                                                   {"/process/stdin", "tape"},
                                                   {"/limits/pids", 1.5}}) {
        CAPTURE(path);
        Json bad = good;
        bad[Json::json_pointer(path)] = value;
        const auto result = container_plan_from_json(bad);
        REQUIRE_FALSE(result.ok());
        CHECK(result.error() == EBADMSG);
    }
    CHECK_FALSE(exit_status_from_json(Json::array()).ok());
}
