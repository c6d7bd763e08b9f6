#include "unit/cri/test.h"

#include <sys/stat.h>

#include "cri/cni/builtin_network.h"
#include "cri/cni/config.h"
#include "cri/cni/plugin_network.h"
#include "unit/cri/temp_dir.h"

using namespace moat::cri;

namespace {

/// A plugin that writes down how it was called, prints `result`, and ends with `code`.
void write_plugin(const TempDir& dir, const std::string& name, const std::string& result,
                  int code) {
    REQUIRE(write_file(dir / name,
                       "#!/bin/sh\n"
                       "echo \"$CNI_COMMAND " +
                           name + " $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS\" >> " +
                           (dir / "calls") + "\ncat >> " + (dir / "calls") + "\necho >> " +
                           (dir / "calls") + "\necho '" + result + "'\nexit " +
                           std::to_string(code) + "\n",
                       0755)
                .ok());
}

}  // namespace

TEST_CASE("CNI: a list, and a configuration of a single plugin") {
    const auto list = parse_cni_network(
        R"({"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"},{"type":"portmap","capabilities":{"portMappings":true}}]})");
    REQUIRE(list.ok());
    CHECK(list->plugins.size() == 2);
    CHECK_FALSE(list->plugins[0].port_mappings);
    CHECK(list->plugins[1].port_mappings);
    CHECK(
        parse_cni_network(R"({"cniVersion":"0.4.0","name":"one","type":"ptp"})")->plugins[0].type ==
        "ptp");
    CHECK_FALSE(parse_cni_network(R"({"name":"n","type":"../../bin/sh"})").ok());
    CHECK_FALSE(parse_cni_network(R"({"name":"n","plugins":[]})").ok());
    CHECK_FALSE(parse_cni_network("{").ok());
}

TEST_CASE("CNI: the first file by name is taken, and none is no error") {
    const TempDir dir;
    CHECK_FALSE(load_cni_network(dir / "missing")->has_value());
    CHECK_FALSE(load_cni_network(dir.path())->has_value());
    REQUIRE(write_file(dir / "20-b.conf", R"({"name":"b","type":"b"})").ok());
    REQUIRE(write_file(dir / "10-a.conflist", R"({"name":"a","plugins":[{"type":"a"}]})").ok());
    REQUIRE(write_file(dir / "00-notes.txt", "not a configuration").ok());
    const auto network = load_cni_network(dir.path());
    REQUIRE(network.ok());
    CHECK((*network)->name == "a");
}

TEST_CASE("CNI: addresses of a result are the pod's own") {
    const auto result = parse_cni_result(
        R"({"cniVersion":"1.0.0","interfaces":[{"name":"veth0"},{"name":"eth0","sandbox":"/run/ns"}],
            "ips":[{"address":"10.1.0.1/24","interface":0},{"address":"10.1.0.5/24","interface":1},{"address":"fd00::5/64","interface":1}]})");
    REQUIRE(result.ok());
    CHECK(result->ips == std::vector<std::string>{"10.1.0.5", "fd00::5"});
    CHECK(parse_cni_result(R"({"ip4":{"ip":"10.2.0.3/16"}})")->ips ==
          std::vector<std::string>{"10.2.0.3"});
    CHECK(parse_cni_result("{}")->ips.empty());
    CHECK_FALSE(parse_cni_result("not json").ok());
}

TEST_CASE("CNI: plugins run in order with the result of the one before, and in reverse for DEL") {
    const TempDir dir;
    write_plugin(dir, "first", R"({"cniVersion":"1.0.0","ips":[{"address":"10.0.0.9/24"}]})", 0);
    write_plugin(dir, "second",
                 R"({"cniVersion":"1.0.0","ips":[{"address":"10.0.0.9/24"}],"dns":{}})", 0);
    const auto network = parse_cni_network(
        R"({"cniVersion":"1.0.0","name":"n","plugins":[{"type":"first"},{"type":"second","capabilities":{"portMappings":true}}]})");
    const CniPod pod{"pod1", "web",          "default",
                     "u1",   "/run/ns/pod1", {{"tcp", 8080, 80, "127.0.0.1"}}};
    const auto result = cni_add(*network, dir.path(), pod);
    REQUIRE_MESSAGE(result.ok(), message_of(result));
    CHECK(contains(*result, "dns"));
    REQUIRE(cni_delete(*network, dir.path(), pod, *result).ok());
    const std::string calls = read_file(dir / "calls", 1 << 20).value_or("");
    const size_t add_first = calls.find("ADD first pod1 eth0 /run/ns/pod1");
    const size_t add_second = calls.find("ADD second pod1");
    const size_t del_second = calls.find("DEL second");
    const size_t del_first = calls.find("DEL first");
    CHECK(add_first < add_second);
    CHECK(add_second < del_second);
    CHECK(del_second < del_first);
    CHECK(del_first != std::string::npos);
    CHECK(contains(calls.substr(add_second, del_second - add_second), "prevResult"));
    CHECK(contains(calls.substr(add_second, del_second - add_second), "\"hostPort\":8080"));
    CHECK_FALSE(contains(calls.substr(0, add_second), "hostPort"));
}

TEST_CASE("CNI: a failed ADD is undone and says what the plugin said") {
    const TempDir dir;
    write_plugin(dir, "good", R"({"cniVersion":"1.0.0"})", 0);
    write_plugin(dir, "bad", R"({"code":11,"msg":"no addresses left","details":"range 1"})", 1);
    const auto network = parse_cni_network(
        R"({"cniVersion":"1.0.0","name":"n","plugins":[{"type":"good"},{"type":"bad"}]})");
    const auto result = cni_add(*network, dir.path(), {"pod1", "", "", "", "/ns", {}});
    REQUIRE_FALSE(result.ok());
    CHECK(contains(result.error().message(), "no addresses left; range 1"));
    CHECK(contains(result.error().message(), "bad"));
    CHECK(contains(read_file(dir / "calls", 1 << 20).value_or(""), "DEL bad"));
}

TEST_CASE("built-in network: ranges") {
    const auto range = parse_ipv4_range("10.1.2.3/16");
    REQUIRE(range.ok());
    CHECK(ipv4_text(range->base) == "10.1.0.0");
    for (const char* text :
         {"", "10.0.0.0", "10.0.0.0/8", "10.0.0.0/31", "10.0.0/24", "fd00::/64", "10.0.0.0/x"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_ipv4_range(text).ok());
    }
}
