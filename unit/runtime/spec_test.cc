#include <nlohmann/json.hpp>

#include "runtime/spec/spec.h"

// Ours aborts, doctest's reports.
#undef CHECK
#include <doctest/doctest.h>

using namespace moat::runtime;
using Json = nlohmann::json;

TEST_CASE("config.json: what moat spec writes is read back") {
    const auto spec = parse_spec(default_spec(), "config.json");
    REQUIRE(spec.ok());
    CHECK(spec->process.args == std::vector<std::string>{"sh"});
    CHECK(spec->root_readonly);
    CHECK(spec->process.capabilities.bounding == ((1ull << 29) | (1ull << 5) | (1ull << 10)));
    CHECK(spec->find_namespace("network") != nullptr);
    CHECK(spec->find_namespace("user") == nullptr);
}

TEST_CASE("config.json: every malformed field is named, with what was expected there") {
    struct Case {
        const char* path;
        Json value;
        const char* field;
        const char* expected;
    };
    const Case cases[] = {
        {"/ociVersion", "2.0.0", "ociVersion", "1.x"},
        {"/root", nullptr, "root", "an object"},
        {"/root/path", 5, "root.path", "a string"},
        {"/root/path", "", "root.path", "path of the root"},
        {"/root/readonly", "yes", "root.readonly", "true or false"},
        {"/process", nullptr, "process", "an object"},
        {"/process/args", "sh", "process.args", "an array of strings"},
        {"/process/args", Json::array(), "process.args", "at least one argument"},
        {"/process/args", {"sh", 3}, "process.args[1]", "a string"},
        {"/process/cwd", "tmp", "process.cwd", "an absolute path"},
        {"/process/user/uid", -1, "process.user.uid", "an integer from 0"},
        {"/process/user/uid", 4294967296, "process.user.uid", "4294967295"},
        {"/process/capabilities/bounding", {"NET_RAW"}, "process.capabilities.bounding", "CAP_"},
        {"/process/rlimits/0/soft", 5000, "process.rlimits[0].soft", "at most the hard limit"},
        {"/process/rlimits/0/type", "NOFILE", "process.rlimits[0].type", "RLIMIT_"},
        {"/mounts", Json::object(), "mounts", "an array of objects"},
        {"/mounts/0", "proc", "mounts[0]", "an object"},
        {"/mounts/1/options/0", 1, "mounts[1].options[0]", "a string"},
        {"/mounts/0/destination", "", "mounts[0].destination", "a path"},
        {"/linux/namespaces/0/type", "mnt", "linux.namespaces[0].type", "pid, network"},
        {"/linux/namespaces/1/type", "pid", "linux.namespaces[1].type", "only once"},
        {"/linux/resources",
         {{"memory", {{"limit", "1G"}}}},
         "linux.resources.memory.limit",
         "an integer"},
        {"/hooks", {{"poststop", {{{"path", "x"}}}}}, "hooks.poststop[0].path", "an absolute path"},
        {"/annotations", {{"a", 1}}, "annotations.a", "a string"},
        {"/hostname", std::string("a\0b", 3), "hostname", "without NUL"},
    };
    for (const Case& c : cases) {
        CAPTURE(c.path);
        Json json = Json::parse(default_spec());
        json[Json::json_pointer(c.path)] = c.value;
        const auto spec = parse_spec(json.dump(), "b/config.json");
        REQUIRE_FALSE(spec.ok());
        CAPTURE(spec.error().message());
        CHECK(spec.error().code() == EINVAL);
        CHECK(spec.error().message().find(std::string("b/config.json: ") + c.field + ":") == 0);
        CHECK(spec.error().message().find(c.expected) != std::string::npos);
    }
}

TEST_CASE("config.json: broken JSON is told with its line") {
    const auto spec = parse_spec("{\n  \"a\": 1,\n  oops\n}", "config.json");
    REQUIRE_FALSE(spec.ok());
    CHECK(spec.error().message().find("config.json: not valid JSON: line 3") == 0);
    CHECK_FALSE(parse_spec("", "config.json").ok());
    CHECK_FALSE(parse_spec("[]", "config.json").ok());
    CHECK(load_spec("/nowhere").error().code() == ENOENT);
}

TEST_CASE("config.json: random damage never does worse than an error (seed 7)") {
    const std::string good = default_spec();
    unsigned seed = 7;
    const auto next = [&] { return seed = seed * 1664525 + 1013904223; };
    for (int i = 0; i < 3000; i++) {
        std::string bad = good;
        for (int k = 0; k < 3; k++) {
            bad[(next() >> 8) % bad.size()] = static_cast<char>(next() >> 24);
        }
        const auto spec = parse_spec(bad, "config.json");
        CHECK((spec.ok() || spec.error().code() == EINVAL));
    }
}

TEST_CASE("annotations: containerd's and CRI-O's say sandbox or join") {
    using Map = std::map<std::string, std::string>;
    CHECK(placement_of({})->role == ContainerRole::kAlone);
    CHECK(placement_of(Map{{"io.kubernetes.cri.container-type", "sandbox"}})->role ==
          ContainerRole::kSandbox);
    const auto joins = placement_of(Map{{"io.kubernetes.cri-o.ContainerType", "container"},
                                        {"io.kubernetes.cri-o.SandboxID", "pod"}});
    CHECK(joins->role == ContainerRole::kJoins);
    CHECK(joins->sandbox_id == "pod");
    CHECK_FALSE(placement_of(Map{{"io.kubernetes.cri.container-type", "container"}}).ok());
    CHECK_FALSE(placement_of(Map{{"io.kubernetes.cri.container-type", "vm"}}).ok());
}
