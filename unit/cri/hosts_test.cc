#include "unit/cri/test.h"

#include "cri/images/hosts.h"

#include "unit/cri/temp_dir.h"

using namespace moat::cri;

TEST_CASE("hosts: mirrors of the command line come first, the host itself last") {
    const RegistryHosts hosts(
        "", {"registry.k8s.io=http://127.0.0.1:5000/", "gcr.io=http://127.0.0.1:1"});
    REQUIRE(hosts.check().ok());
    const auto endpoints = hosts.endpoints("registry.k8s.io");
    REQUIRE(endpoints.ok());
    REQUIRE(endpoints->size() == 2);
    CHECK(endpoints->at(0).url == "http://127.0.0.1:5000");
    CHECK(endpoints->at(1).url == "https://registry.k8s.io");
    CHECK_FALSE(RegistryHosts("", {"no-url"}).check().ok());
    CHECK_FALSE(RegistryHosts("", {"a=ftp://b"}).check().ok());
}

TEST_CASE("hosts: loopback is plain http, everybody else is not") {
    CHECK(default_registry_url("127.0.0.1:5000") == "http://127.0.0.1:5000");
    CHECK(default_registry_url("localhost") == "http://localhost");
    CHECK(default_registry_url("docker.io") == "https://registry-1.docker.io");
    CHECK(default_registry_url("127evil.example") == "https://127evil.example");
}

TEST_CASE("hosts: a hosts file names servers, and those that may not pull are left out") {
    const auto file = parse_hosts_file(
        "server = \"https://up.example\"  # the registry\n"
        "\n"
        "[host.\"http://127.0.0.1:5000\"]\n"
        "  capabilities = [\"pull\", \"resolve\"]\n"
        "[host.\"https://push.example\"]\n"
        "  capabilities = [\"push\"]\n"
        "[host.\"https://self.example\"]\n"
        "  skip_verify = true\n"
        "  ca = '/etc/ca.pem'\n");
    REQUIRE_MESSAGE(file.ok(), message_of(file));
    CHECK(file->server == "https://up.example");
    REQUIRE(file->hosts.size() == 2);
    CHECK(file->hosts[0].url == "http://127.0.0.1:5000");
    CHECK(file->hosts[1].skip_verify);
    CHECK(file->hosts[1].ca_file == "/etc/ca.pem");
}

TEST_CASE("hosts: an unknown setting is an error with its line") {
    CHECK(contains(message_of(parse_hosts_file("server = \"https://a\"\nfoo = 1\n")), "line 2"));
    CHECK_FALSE(parse_hosts_file("[plugins]\n").ok());
    CHECK_FALSE(parse_hosts_file("server = bare\n").ok());
    CHECK_FALSE(parse_hosts_file("server = \"a\\\"b\"\n").ok());
}

TEST_CASE("hosts: the file of a host is read from its directory, else the default's") {
    const TempDir dir;
    REQUIRE(make_directories(dir / "gcr.io").ok());
    REQUIRE(make_directories(dir / "_default").ok());
    REQUIRE(write_file(dir / "gcr.io/hosts.toml", "server = \"http://127.0.0.1:1\"\n").ok());
    REQUIRE(write_file(dir / "_default/hosts.toml", "[host.\"http://127.0.0.1:2\"]\n").ok());
    const RegistryHosts hosts(dir.path(), {});
    CHECK(hosts.endpoints("gcr.io")->at(0).url == "http://127.0.0.1:1");
    const auto other = hosts.endpoints("quay.io");
    REQUIRE(other->size() == 2);
    CHECK(other->at(0).url == "http://127.0.0.1:2");
    CHECK(other->at(1).url == "https://quay.io");
}
