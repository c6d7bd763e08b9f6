#include "cri/server/request_check.h"

#include "api.pb.h"
#include "cri/base/texts.h"
#include "cri/server/errors.h"
#include "unit/cri/temp_dir.h"
#include "unit/cri/test.h"

using namespace moat::cri;
namespace api = ::runtime::v1;

TEST_CASE("request check: the first bad field is named by its path") {
    api::CreateContainerRequest request;
    CHECK(message_of(check_request(request)) == "pod_sandbox_id: missing");
    request.set_pod_sandbox_id("p");
    CHECK(check_request(request).ok());
    request.mutable_config()->add_mounts()->set_host_path("/a");
    auto& second = *request.mutable_config()->add_mounts();
    second.set_host_path(std::string("/a\0b", 4));
    CHECK(message_of(check_request(request)) == "config.mounts[1].host_path: holds a NUL byte");
    second.set_host_path("/b");
    second.set_propagation(static_cast<api::MountPropagation>(9));
    CHECK(message_of(check_request(request)) == "config.mounts[1].propagation: 9: unknown");
    second.set_propagation(api::PROPAGATION_PRIVATE);
    (*request.mutable_config()->mutable_labels())["k"] = std::string("a\0", 2);
    CHECK(message_of(check_request(request)) == "config.labels[0].value: holds a NUL byte");
    (*request.mutable_config()->mutable_labels())["k"] = std::string(kLongestText + 1, 'x');
    CHECK(contains(message_of(check_request(request)), "config.labels[0].value: longer"));
    CHECK(message_of(check_request(request)).size() < 300);
    request.mutable_config()->clear_labels();
    // A value of a variable is bytes: what it may hold is execve(2)'s affair.
    request.mutable_config()->add_envs()->set_value(std::string("a\0b", 3));
    CHECK(check_request(request).ok());
}

TEST_CASE("texts: messages stay short and are UTF-8") {
    CHECK(in_quotes("a\nb") == "\"a?b\"");
    for (size_t cut = 60; cut < 66; ++cut) {
        const std::string text =
            in_quotes(std::string(cut, 'a') + "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac");
        CHECK_MESSAGE(text.find("a\xe2\x82.") == std::string::npos, text);
        CHECK_MESSAGE(text.find("a\xe2.") == std::string::npos, text);
    }
    const auto status = to_grpc(
        invalid_argument(std::string(1999, 'x') + "\xe2\x82\xac" + std::string(99999, 'y')));
    CHECK(status.error_message().size() < 2100);
    CHECK(contains(status.error_message(), "x... ("));
}

TEST_CASE("texts: names and paths") {
    for (const char* good : {"a", "A_b.c-d", "b\xc3\xa4r", "a b", "..a"}) {
        CHECK_MESSAGE(check_name(good, "f").ok(), good);
    }
    for (const char* bad : {"", ".", "..", "a/b", "a;b", "a=b", "a\nb", "\x7f"}) {
        CHECK_MESSAGE(!check_name(bad, "f").ok(), bad);
    }
    for (const char* good : {"/", "/a", "//a/./b/", "/..a/b..", "/a b"}) {
        CHECK_MESSAGE(check_absolute_path(good, "f").ok(), good);
    }
    for (const char* bad : {"", "a", "/..", "/a/../b", "/a/..", "/a\nb"}) {
        CHECK_MESSAGE(!check_absolute_path(bad, "f").ok(), bad);
    }
    CHECK(check_relative_path("a/b", "f").ok());
    CHECK_FALSE(check_relative_path("../b", "f").ok());
    CHECK_FALSE(check_relative_path("/b", "f").ok());
    CHECK_FALSE(check_absolute_path("/" + std::string(256, 'a'), "f").ok());
    CHECK(check_absolute_path("/" + std::string(255, 'a'), "f").ok());
    CHECK(check_hostname("", "f").ok());
    CHECK(check_hostname("web-0.a_b", "f").ok());
    CHECK_FALSE(check_hostname("web 0", "f").ok());
}
