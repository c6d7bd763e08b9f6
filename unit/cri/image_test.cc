
#include "unit/cri/test.h"

#include "cri/containers/user.h"
#include "cri/images/auth.h"
#include "cri/images/http.h"
#include "cri/images/image_config.h"
#include "cri/images/manifest.h"
#include "unit/cri/temp_dir.h"

using namespace moat::cri;

TEST_CASE("image configuration: lists that Go wrote as null are empty") {
    const auto config = parse_image_config(
        R"({"architecture":"amd64","os":"linux","config":{"Cmd":null,"Entrypoint":["/pause"],"User":"65535:65535","StopSignal":"SIGRTMIN+3"},"rootfs":{"type":"layers","diff_ids":[]}})");
    REQUIRE(config.ok());
    CHECK(config->cmd.empty());
    CHECK(config->entrypoint == std::vector<std::string>{"/pause"});
    CHECK(config->user == "65535:65535");
    CHECK_FALSE(parse_image_config(R"({"rootfs":{"diff_ids":["md5:1"]}})").ok());
    CHECK_FALSE(parse_image_config("{}").ok());
}

TEST_CASE("stop signals: names, numbers and real-time ones") {
    CHECK(signal_number("SIGTERM") == 15);
    CHECK(signal_number("quit") == 0);
    CHECK(signal_number("QUIT") == 3);
    CHECK(signal_number("9") == 9);
    CHECK(signal_number("65") == 0);
    CHECK(signal_number("99999999999") == 0);
    CHECK(signal_number("SIGRTMIN+3") == 37);
    CHECK(signal_number("SIGRTMAX-1") == 63);
    CHECK(signal_number("SIGRTMIN+99") == 0);
    CHECK(signal_number("SIGNONE") == 0);
}

TEST_CASE("manifest: kinds are told apart, and a text that is both is refused") {
    const std::string digest = "sha256:" + std::string(64, 'b');
    const std::string descriptor = R"({"digest":")" + digest + R"(","size":7})";
    const auto manifest = parse_manifest(
        R"({"schemaVersion":2,"config":)" + descriptor + R"(,"layers":[)" + descriptor + "]}", "");
    REQUIRE_MESSAGE(manifest.ok(), message_of(manifest));
    CHECK(std::get<Manifest>(*manifest).layers.at(0).size == 7);
    const auto index =
        parse_manifest(R"({"schemaVersion":2,"manifests":[)" + descriptor + "]}", "");
    REQUIRE(index.ok());
    CHECK(std::holds_alternative<Index>(*index));
    CHECK_FALSE(
        parse_manifest(R"({"config":)" + descriptor + R"(,"layers":[],"manifests":[]})", "").ok());
    CHECK_FALSE(
        parse_manifest(R"({"config":{"digest":"sha256:12","size":1},"layers":[]})", "").ok());
    CHECK_FALSE(
        parse_manifest(R"({"config":{"digest":")" + digest + R"(","size":-1},"layers":[]})", "")
            .ok());
    CHECK(contains(message_of(parse_manifest(R"({"schemaVersion":1})", "")), "schema 1"));
    CHECK_FALSE(parse_manifest("[]", "").ok());
}

TEST_CASE("manifest list: this machine's entry, the newest that the CPU has") {
    Index index;
    const auto add = [&](const char* os, const std::string& architecture, const char* variant,
                         char digest) {
        index.entries.push_back(
            {{"", "sha256:" + std::string(64, digest), 1}, os, architecture, variant, "", ""});
    };
    add("windows", host_architecture(), "", 'a');
    add("linux", "riscv64", "", 'b');
    const auto none = choose_platform(index);
    REQUIRE_FALSE(none.ok());
    CHECK(contains(none.error().message(), "linux/riscv64"));
    const auto chosen = [&](int level) { return choose_platform(index, level)->digest[7]; };
    add("linux", host_architecture(), "v3", 'c');
    CHECK_FALSE(choose_platform(index, 2).ok());
    CHECK(chosen(3) == 'c');
    add("linux", host_architecture(), "", 'd');
    add("linux", host_architecture(), "v2", 'e');
    add("linux", host_architecture(), "v9000", 'f');
    CHECK(chosen(1) == 'd');
    CHECK(chosen(2) == 'e');
    CHECK(chosen(4) == 'c');
}

TEST_CASE("manifest: layers and configurations of other kinds are refused by their name") {
    const auto parse = [](const std::string& config, const std::string& layer) {
        const std::string rest = R"(","digest":"sha256:)" + std::string(64, 'b') + R"(","size":7})";
        return parse_manifest(R"({"schemaVersion":2,"config":{"mediaType":")" + config + rest +
                                  R"(,"layers":[{"mediaType":")" + layer + rest + "]}",
                              "");
    };
    const std::string config = "application/vnd.oci.image.config.v1+json";
    CHECK(parse(config, "application/vnd.oci.image.layer.v1.tar+zstd").ok());
    for (const std::string layer :
         {"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
          "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "text/plain"}) {
        const auto refused = parse(config, layer);
        REQUIRE_FALSE(refused.ok());
        CHECK(refused.error().code() == EOPNOTSUPP);
        CHECK(contains(refused.error().message(), layer));
    }
    const std::string chart = "application/vnd.cncf.helm.config.v1+json";
    CHECK(contains(message_of(parse(chart, "")), chart));
}

TEST_CASE("registry: challenges are taken apart in any order") {
    const auto challenge = parse_challenge(
        R"(Bearer service="s",realm="https://a/token?x=1", scope="repository:a:pull,push")");
    CHECK(challenge.scheme == "bearer");
    CHECK(challenge.realm == "https://a/token?x=1");
    CHECK(challenge.service == "s");
    CHECK(challenge.scope == "repository:a:pull,push");
    CHECK(parse_challenge("Basic realm=x").scheme == "basic");
    CHECK(parse_challenge("").scheme.empty());
    CHECK(parse_challenge("Bearer realm=\"unterminated").realm == "unterminated");
}

TEST_CASE("http: origins and redirects") {
    CHECK(url_origin("HTTPS://A.example/x?y") == "https://a.example:443");
    CHECK(url_origin("http://a:80/") == url_origin("http://A"));
    CHECK(url_origin("http://a:81/") != url_origin("http://a"));
    CHECK(url_resolve("http://a/b/c?d", "/e").value_or("") == "http://a/e");
    CHECK(url_resolve("http://a/b/c", "https://x/y").value_or("") == "https://x/y");
    CHECK(url_without_query("http://a/b?secret") == "http://a/b");
    CHECK(HttpClient::encode("a b:c/~") == "a%20b%3Ac%2F~");
}

namespace {

struct Etc {
    TempDir dir;
    Etc() {
        REQUIRE(make_directories(dir / "etc").ok());
        REQUIRE(
            write_file(dir / "etc/passwd",
                       "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/srv:\nbroken\nbad:x:a:b::/:\n")
                .ok());
        REQUIRE(
            write_file(dir / "etc/group", "root:x:0:\nusers:x:100:other,www\nextra:x:50000:www\n")
                .ok());
    }
};

}  // namespace

TEST_CASE("user: names come from the image, groups of its members are merged") {
    const Etc image;
    UserRequest request;
    request.image_user = "www";
    auto user = resolve_user(image.dir.path(), request);
    REQUIRE_MESSAGE(user.ok(), message_of(user));
    CHECK(user->ids.uid == 33);
    CHECK(user->ids.gid == 34);
    CHECK(user->home == "/srv");
    CHECK(user->ids.groups == std::vector<uint32_t>{34, 100, 50000});
    request.merge_image_groups = false;
    request.supplemental_groups = {7};
    user = resolve_user(image.dir.path(), request);
    CHECK(user->ids.groups == std::vector<uint32_t>{34, 7});
}

TEST_CASE("user: what the request says goes before the image") {
    const Etc image;
    UserRequest request;
    request.image_user = "www:users";
    CHECK(resolve_user(image.dir.path(), request)->ids.gid == 100);
    request.uid = 1234;
    auto user = resolve_user(image.dir.path(), request);
    CHECK(user->ids.uid == 1234);
    CHECK(user->ids.gid == 0);
    request.gid = 55;
    CHECK(resolve_user(image.dir.path(), request)->ids.gid == 55);
    request.uid.reset();
    request.username = "www";
    user = resolve_user(image.dir.path(), request);
    CHECK(user->ids.uid == 33);
    CHECK(user->ids.gid == 55);
}

TEST_CASE("user: what cannot be is an error") {
    const Etc image;
    UserRequest request;
    request.gid = 5;
    CHECK(contains(message_of(resolve_user(image.dir.path(), request)), "run_as_group"));
    request.gid.reset();
    request.username = "nobody-here";
    CHECK(contains(message_of(resolve_user(image.dir.path(), request)), "nobody-here"));
    request.username.clear();
    request.uid = -1;
    CHECK_FALSE(resolve_user(image.dir.path(), request).ok());
    request.uid = int64_t{1} << 32;
    CHECK_FALSE(resolve_user(image.dir.path(), request).ok());
}

TEST_CASE("user: a passwd that is a link out of the image is not the node's") {
    const TempDir image;
    REQUIRE(make_directories(image / "etc").ok());
    REQUIRE(symlink("/etc/passwd", (image / "etc/passwd").c_str()) == 0);
    UserRequest request;
    request.image_user = "root";
    // Inside the image the link leads to itself.
    CHECK_FALSE(resolve_user(image.path(), request).ok());
}

TEST_CASE("user: ImageStatus tells numbers from names") {
    CHECK(parse_image_user("").uid == 0);
    CHECK(parse_image_user("1002").uid == 1002);
    CHECK(parse_image_user("1003:users").uid == 1003);
    CHECK(parse_image_user("www-data:100").username == "www-data");
    CHECK_FALSE(parse_image_user("www-data").uid.has_value());
}
