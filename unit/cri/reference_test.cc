#include "unit/cri/test.h"

#include "cri/images/reference.h"

#include "unit/cri/temp_dir.h"

using namespace moat::cri;

TEST_CASE("reference: short names are filled up") {
    const auto plain = parse_reference("busybox");
    REQUIRE(plain.ok());
    CHECK(plain->tagged() == "docker.io/library/busybox:latest");
    CHECK(parse_reference("user/app:1")->tagged() == "docker.io/user/app:1");
    CHECK(parse_reference("index.docker.io/busybox")->tagged() ==
          "docker.io/library/busybox:latest");
}

TEST_CASE("reference: a port is not a tag and a tag is not a port") {
    const auto local = parse_reference("127.0.0.1:5000/a/b");
    REQUIRE(local.ok());
    CHECK(local->host == "127.0.0.1:5000");
    CHECK(local->path == "a/b");
    CHECK(local->tag == "latest");
    CHECK(parse_reference("localhost/x:2")->host == "localhost");
    CHECK(parse_reference("name:5000")->tag == "5000");
}

TEST_CASE("reference: a digest stands beside a tag or alone") {
    const std::string digest = "sha256:" + std::string(64, 'a');
    const auto both = parse_reference("registry.k8s.io/pause:3.9@" + digest);
    REQUIRE(both.ok());
    CHECK(both->tag == "3.9");
    CHECK(both->target() == digest);
    const auto alone = parse_reference("registry.k8s.io/pause@" + digest);
    REQUIRE(alone.ok());
    CHECK(alone->tag.empty());
    CHECK(alone->by_digest(alone->digest) == "registry.k8s.io/pause@" + digest);
}

TEST_CASE("reference: what is no name is refused with its part") {
    for (const char* text : {"", "UPPER", "a//b", "a/../b", "a:", "a:", "a@sha256:12", "-a", "a_-b",
                             "a..b", "a b", "host.example/a:tag with space", "x/y/"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_reference(text).ok());
    }
    CHECK(contains(message_of(parse_reference("a@md5:00")), "digest"));
    CHECK(contains(message_of(parse_reference("a:" + std::string(129, 't'))), "tag"));
    CHECK(parse_reference("a__b/c--d.e").ok());
}
