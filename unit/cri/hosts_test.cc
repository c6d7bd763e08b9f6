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

TEST_CASE("hosts: a hosts file names servers in its own order, with what they are asked with") {
    const auto file = parse_hosts_file(R"(server = "https://up.example"  # the registry
ca = "/etc/up.pem"

[host."http://zzz:5000"]
  capabilities = ["pull", "resolve"]
[host."https://push.example"]
  capabilities = ["push"]
[host."self.example/mirror/"]
  skip_verify = true
  ca = ['/etc/ca.pem', "near.pem"]
  client = [["c.pem", "c.key"]]
  dial_timeout = "3s"
  [host."self.example/mirror/".header]
    x-token = ["secret"]
[host."https://raw.example/v2/raw"]
  override_path = true
)",
                                       "/certs");
    REQUIRE_MESSAGE(file.ok(), message_of(file));
    CHECK(file->server.url == "https://up.example");
    CHECK(file->server.root == "https://up.example/v2");
    CHECK(file->server.tls.ca == std::vector<std::string>{"/etc/up.pem"});
    REQUIRE(file->hosts.size() == 4);
    CHECK(file->hosts[0].root == "http://zzz:5000/v2");
    CHECK_FALSE(file->hosts[1].may_pull);
    CHECK_FALSE(file->hosts[1].may_resolve);
    const RegistryEndpoint& self = file->hosts[2];
    CHECK(self.root == "https://self.example/mirror/v2");
    CHECK(self.tls.skip_verify);
    CHECK(self.tls.ca == std::vector<std::string>{"/etc/ca.pem", "/certs/near.pem"});
    REQUIRE(self.tls.client.size() == 1);
    CHECK(self.tls.client[0] ==
          std::pair<std::string, std::string>{"/certs/c.pem", "/certs/c.key"});
    REQUIRE(self.headers.size() == 1);
    CHECK(self.headers[0].second == "secret");
    CHECK(file->hosts[3].root == "https://raw.example/v2/raw");
}

TEST_CASE("hosts: an unknown setting or a wrong value is an error with its line") {
    const auto parse = [](const std::string& text) { return parse_hosts_file(text, "/"); };
    CHECK(contains(message_of(parse("server = \"https://a\"\nfoo = 1\n")), "line 2"));
    CHECK(contains(message_of(parse("\n\n[host.\"https://a\"]\nca = 7\n")), "line 4"));
    CHECK(contains(message_of(parse("server = \"https://a\"\n\nx =\n")), "line 3"));
    CHECK_FALSE(parse("[plugins]\n").ok());
    CHECK_FALSE(parse("server = bare\n").ok());
    CHECK_FALSE(parse("server = \"ftp://a\"\n").ok());
    CHECK_FALSE(parse("capabilities = [\"fly\"]\n").ok());
    CHECK_FALSE(parse("[host.\"https://a\".header]\nx = \"a\\nb\"\n").ok());
}

TEST_CASE("hosts: who may not pull is not asked; certificates lie about as Docker has them") {
    const TempDir dir;
    REQUIRE(make_directories(dir / "push.example").ok());
    REQUIRE(write_file(dir / "push.example/hosts.toml",
                       "server = \"https://s\"\n[host.\"https://m\"]\ncapabilities=[\"push\"]\n")
                .ok());
    REQUIRE(make_directories(dir / "docker.example:5000").ok());
    for (const char* name : {"b.crt", "me.cert", "me.key"}) {
        REQUIRE(write_file(dir / "docker.example:5000/" + name, "").ok());
    }
    const RegistryHosts hosts(dir.path(), {});
    REQUIRE(hosts.endpoints("push.example")->size() == 1);
    CHECK(hosts.endpoints("push.example")->at(0).url == "https://s");
    CHECK(hosts.endpoints("push.example")->at(0).last);
    const auto docker = hosts.endpoints("docker.example:5000");
    REQUIRE(docker->size() == 1);
    CHECK(docker->at(0).url == "https://docker.example:5000");
    CHECK(docker->at(0).tls.ca.size() == 1);
    REQUIRE(docker->at(0).tls.client.size() == 1);
    CHECK(docker->at(0).tls.client[0].second == dir / "docker.example:5000/me.key");
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
