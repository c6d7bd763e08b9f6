#include "unit/cri/test.h"

#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cri/cni/builtin_network.h"
#include "cri/cni/config.h"
#include "cri/cni/plugin_network.h"
#include "kernel/base/scoped_fd.h"
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
    CHECK_FALSE(list->plugins[0].has("portMappings"));
    CHECK(list->plugins[1].has("portMappings"));
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
    const CniPod pod{"pod1",   "web",          "default",
                     "u1",     "/run/ns/pod1", {{"tcp", 8080, 80, "127.0.0.1"}},
                     {1000, 0}};
    const auto result = cni_add(*network, {dir.path()}, pod);
    REQUIRE_MESSAGE(result.ok(), message_of(result));
    CHECK(contains(*result, "dns"));
    REQUIRE(cni_delete(*network, {dir.path()}, pod, *result).ok());
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
    const auto result = cni_add(*network, {dir.path()}, {"pod1", "", "", "", "/ns"});
    REQUIRE_FALSE(result.ok());
    CHECK(contains(result.error().message(), "no addresses left; range 1"));
    CHECK(contains(result.error().message(), "bad"));
    CHECK(contains(read_file(dir / "calls", 1 << 20).value_or(""), "DEL bad"));
}

TEST_CASE("CNI: of the versions offered the newest that we speak") {
    const auto version = [](const std::string& offered) {
        const auto list = parse_cni_network("{" + offered + R"(,"name":"n","type":"x"})");
        return list.ok() ? list->version : list.error().message();
    };
    CHECK(version(R"("cniVersion":"0.3.1")") == "0.3.1");
    CHECK(version(R"("cniVersion":"1.0.0","cniVersions":["0.4.0","1.1.0","2.0.0"])") == "1.1.0");
    CHECK(version(R"("cniVersion":"0.4.0","cniVersions":["0.3.1"])") == "0.4.0");
    CHECK(contains(version(R"("cniVersion":"9.0.0")"), "cniVersion: 9.0.0: we speak"));
    CniNetwork network;
    network.version = "0.10.0";
    CHECK(network.at_least(0, 4));
    CHECK_FALSE(network.at_least(1, 0));
}

TEST_CASE("CNI: what a result says about names") {
    const auto result = parse_cni_result(
        R"({"ips":[],"dns":{"nameservers":["10.0.0.53"],"domain":"a","search":["b","c"],"options":["ndots:2"]}})");
    REQUIRE(result.ok());
    CHECK(result->dns.servers == std::vector<std::string>{"10.0.0.53"});
    CHECK(result->dns.searches == std::vector<std::string>{"a", "b", "c"});
    CHECK(result->dns.options == std::vector<std::string>{"ndots:2"});
    CHECK_FALSE(parse_cni_result(R"({"dns":{"nameservers":[5]}})").ok());
}

TEST_CASE("CNI: quantities of bandwidth") {
    CHECK(parse_bandwidth("10M").value_or(0) == 10'000'000);
    CHECK(parse_bandwidth("1.5k").value_or(0) == 1500);
    CHECK(parse_bandwidth("1Mi").value_or(0) == 1 << 20);
    CHECK(parse_bandwidth("5000").value_or(0) == 5000);
    CHECK(parse_bandwidth("2e6").value_or(0) == 2'000'000);
    for (const char* text : {"", "M", "10X", "999", "-5M", "10 M", "2P", "nan", "inf"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_bandwidth(text).ok());
    }
}

TEST_CASE("CNI: a capability reaches the plugin that declared it, and no other") {
    const TempDir dir;
    write_plugin(dir, "plain", R"({"cniVersion":"1.0.0"})", 0);
    write_plugin(dir, "able", R"({"cniVersion":"1.0.0"})", 0);
    const auto network = parse_cni_network(
        R"({"cniVersion":"1.0.0","name":"n","plugins":[{"type":"plain","capabilities":{"dns":false}},{"type":"able","capabilities":)"
        R"({"bandwidth":true,"dns":true,"ipRanges":true,"io.kubernetes.cri.pod-annotations":true}}]})");
    CniPod pod{"pod1", "", "", "", "/ns"};
    pod.bandwidth.egress = 1000;
    pod.dns.servers = {"10.0.0.53"};
    pod.ip_ranges = {"10.1.0.0/24", "fd00::/64"};
    pod.annotations = {{"a", "b"}};
    REQUIRE(cni_add(*network, {dir.path()}, pod).ok());
    const std::string calls = read_file(dir / "calls", 1 << 20).value_or("");
    const size_t second = calls.find("ADD able");
    CHECK_FALSE(contains(calls.substr(0, second), "runtimeConfig"));
    CHECK_FALSE(contains(calls, "capabilities"));
    for (const char* part :
         {R"("egressRate":1000)", R"("egressBurst":4294967295)", R"("servers":["10.0.0.53"])",
          R"("ipRanges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00::/64"}]])",
          R"("io.kubernetes.cri.pod-annotations":{"a":"b"})"}) {
        CAPTURE(part);
        CHECK(contains(calls.substr(second), part));
    }
    CHECK_FALSE(contains(calls, "ingressRate"));
}

TEST_CASE("CNI: a plugin that hangs is killed with its children, and its list is undone") {
    const TempDir dir;
    REQUIRE(write_file(dir / "hangs",
                       "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || { echo $CNI_COMMAND >> " +
                           (dir / "calls") + "; exit 0; }\nsleep 1000 &\necho $! > " +
                           (dir / "child") + "\nwait\n",
                       0755)
                .ok());
    const auto network = parse_cni_network(R"({"cniVersion":"1.0.0","name":"n","type":"hangs"})");
    const auto result = cni_add(*network, {dir.path(), std::chrono::milliseconds(1500)},
                                {"pod1", "", "", "", "/ns"});
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code() == ETIMEDOUT);
    CHECK(contains(result.error().message(), "CNI ADD by plugin hangs"));
    CHECK(read_file(dir / "calls", 100).value_or("") == "DEL\n");
    const pid_t child = atoi(read_file(dir / "child", 100).value_or("0").c_str());
    REQUIRE(child > 0);
    // Killed with the group, by a signal that its own thread still has to act upon.
    const moat::ScopedFd process(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
    if (process.valid()) {
        pollfd ended{process.get(), POLLIN, 0};
        CHECK(poll(&ended, 1, 10'000) == 1);
    }
}

TEST_CASE("CNI: a plugin that prints garbage, or without end, is named") {
    const TempDir dir;
    write_plugin(dir, "garbage", "all is well", 0);
    write_plugin(dir, "next", "{}", 0);
    REQUIRE(write_file(dir / "floods",
                       "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\nexec cat /dev/zero\n", 0755)
                .ok());
    const auto garbage = cni_add(
        *parse_cni_network(
            R"({"cniVersion":"1.0.0","name":"n","plugins":[{"type":"garbage"},{"type":"next"}]})"),
        {dir.path()}, {"pod1", "", "", "", "/ns"});
    REQUIRE_FALSE(garbage.ok());
    CHECK(contains(garbage.error().message(), "CNI ADD by plugin garbage"));
    CHECK_FALSE(contains(read_file(dir / "calls", 1 << 20).value_or(""), "ADD next"));
    CHECK(contains(read_file(dir / "calls", 1 << 20).value_or(""), "DEL garbage"));
    const auto flood =
        cni_add(*parse_cni_network(R"({"cniVersion":"1.0.0","name":"n","type":"floods"})"),
                {dir.path()}, {"pod1", "", "", "", "/ns"});
    REQUIRE_FALSE(flood.ok());
    CHECK(contains(flood.error().message(), "printed more than"));
}

TEST_CASE("CNI: DEL runs every plugin and reports the first that failed") {
    const TempDir dir;
    write_plugin(dir, "first", "{}", 0);
    write_plugin(dir, "second", R"({"msg":"cannot"})", 1);
    const auto deleted = cni_delete(
        *parse_cni_network(
            R"({"cniVersion":"1.0.0","name":"n","plugins":[{"type":"first"},{"type":"second"}]})"),
        {dir.path()}, {"pod1", "", "", "", "/ns"}, "");
    CHECK(contains(message_of(deleted), "CNI DEL by plugin second: cannot"));
    CHECK(contains(read_file(dir / "calls", 1 << 20).value_or(""), "DEL first"));
}

TEST_CASE("CNI: STATUS and GC are for lists of 1.1 and newer") {
    const TempDir dir;
    write_plugin(dir, "p", R"({"code":50,"msg":"not ready yet"})", 1);
    const auto list = [](const char* version, const char* more = "") {
        return *parse_cni_network(std::string(R"({"cniVersion":")") + version + R"(","name":"n")" +
                                  more + R"(,"plugins":[{"type":"p"}]})");
    };
    CHECK(cni_status(list("1.0.0"), {dir.path()}).ok());
    CHECK(cni_collect(list("1.0.0"), {dir.path()}, {}).ok());
    CHECK(cni_collect(list("1.1.0", R"(,"disableGC":true)"), {dir.path()}, {}).ok());
    CHECK(read_file(dir / "calls", 1 << 20).value_or("").empty());
    CHECK(contains(message_of(cni_status(list("1.1.0"), {dir.path()})), "not ready yet"));
    CHECK(contains(message_of(cni_collect(list("1.1.0"), {dir.path()}, {"a", "b"})),
                   "CNI GC by plugin p"));
    CHECK(contains(
        read_file(dir / "calls", 1 << 20).value_or(""),
        R"("cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"},{"containerID":"b","ifname":"eth0"}])"));
}

TEST_CASE("node rules: one transaction that replaces the table of this root") {
    CHECK(nft_table("/var/lib/moat") != nft_table("/elsewhere"));
    CHECK(nft_script({}, "moat_1") == "add table ip moat_1\ndelete table ip moat_1\n");
    const std::string script = nft_script(
        {{{"10.213.0.2", {"tcp", 8080, 80, ""}}, {"10.213.0.2", {"udp", 53, 5353, "127.0.0.1"}}},
         {"10.213.0.0/16"}},
        "moat_1");
    CHECK(contains(script, "    tcp dport 8080 dnat to 10.213.0.2:80\n"));
    CHECK(contains(script, "    ip daddr 127.0.0.1 udp dport 53 dnat to 10.213.0.2:5353\n"));
    CHECK(contains(
        script,
        "ip saddr 10.213.0.0/16 ip daddr != 10.213.0.0/16 oifname != \"moat*\" masquerade"));
    CHECK(contains(script, "iifname \"moat*\" ip daddr 127.0.0.0/8 drop"));
    CHECK_FALSE(contains(nft_script({{}, {"10.213.0.0/16"}}, "moat_1"), "hostports"));
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
