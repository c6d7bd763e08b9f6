#include "cri/streaming/negotiate.h"

#include "cri/streaming/remote_status.h"
#include "cri/streaming/tokens.h"
#include "unit/cri/test.h"

using namespace moat::cri;
using namespace moat::cri::streaming;

namespace {

Handshake spdy(std::vector<std::string> protocols) {
    return {"POST", "/", {"Upgrade"}, {"SPDY/3.1"}, std::move(protocols), {}};
}
Handshake websocket(std::vector<std::string> protocols) {
    return {"GET", "/", {"keep-alive, Upgrade"}, {"WebSocket"}, {}, std::move(protocols)};
}

}  // namespace

TEST_CASE("streaming targets: an endpoint and a token, nothing else") {
    const auto target = parse_target("/attach/abc?stdin=1");
    REQUIRE(target);
    CHECK(target->endpoint == Endpoint::kAttach);
    CHECK(target->token == "abc");
    CHECK(parse_target("/portforward/x")->endpoint == Endpoint::kPortForward);
    for (const char* bad : {"", "/", "/exec", "/exec/", "/exec//", "/exec/a/b", "/exe/a", "exec/a",
                            "http://x/exec/a", "/exec/?a", "*"}) {
        CHECK_FALSE(parse_target(bad));
    }
}

TEST_CASE("streaming protocols: the client's first choice that we speak") {
    auto decision = negotiate(spdy({"v9.channel.k8s.io, v3.channel.k8s.io", "v4.channel.k8s.io"}),
                              Endpoint::kExec);
    CHECK(decision.kind == Decision::Kind::kSpdy);
    CHECK(decision.protocol == "v3.channel.k8s.io");
    CHECK(decision.status == 101);
    decision = negotiate(spdy({"portforward.k8s.io"}), Endpoint::kPortForward);
    CHECK(decision.kind == Decision::Kind::kSpdy);
    decision = negotiate(websocket({"v5.channel.k8s.io"}), Endpoint::kAttach);
    CHECK(decision.kind == Decision::Kind::kWebSocket);
    CHECK(decision.protocol == "v5.channel.k8s.io");
    decision = negotiate(websocket({}), Endpoint::kExec);
    CHECK(decision.kind == Decision::Kind::kWebSocket);
    CHECK(decision.protocol == "");
    decision = negotiate(websocket({"SPDY/3.1+portforward.k8s.io"}), Endpoint::kPortForward);
    CHECK(decision.kind == Decision::Kind::kWebSocketTunnel);
}

TEST_CASE("streaming protocols: refusals are those of the reference") {
    auto decision = negotiate(spdy({"portforward.k8s.io"}), Endpoint::kExec);
    CHECK(decision.status == 403);
    CHECK(decision.headers.size() == 4);
    CHECK(decision.headers[0].second == "v4.channel.k8s.io");
    CHECK(negotiate(spdy({}), Endpoint::kExec).status == 400);
    CHECK(negotiate(spdy({" , "}), Endpoint::kExec).status == 400);
    Handshake bare = spdy({"v4.channel.k8s.io"});
    bare.upgrade.clear();
    CHECK(negotiate(bare, Endpoint::kExec).status == 400);
    bare = spdy({"v4.channel.k8s.io"});
    bare.method = "PUT";
    CHECK(negotiate(bare, Endpoint::kExec).status == 405);
    CHECK(negotiate(websocket({"v5.channel.k8s.io"}), Endpoint::kPortForward).status == 403);
    CHECK(negotiate(websocket({"SPDY/3.1+portforward.k8s.io"}), Endpoint::kExec).status == 403);
}

TEST_CASE("protocol versions") {
    CHECK(protocol_version("v5.channel.k8s.io") == 5);
    CHECK(protocol_version("v4.base64.channel.k8s.io") == 4);
    CHECK(protocol_version("channel.k8s.io") == 1);
    CHECK(protocol_version("") == 1);
}

TEST_CASE("tokens: once, for a minute, and not without bound") {
    Tokens::Clock::time_point now{};
    Tokens tokens([&] { return now; });
    const std::string token = *tokens.add(AttachRequest{.container_id = "c"});
    CHECK(token.size() == 32);
    CHECK(tokens.take("x" + token).error().code() == ENOENT);
    CHECK(std::get<AttachRequest>(*tokens.take(token)).container_id == "c");
    CHECK(tokens.take(token).error().code() == ENOENT);

    const std::string early = *tokens.add(ExecRequest{});
    now += Tokens::kLifetime;
    const std::string late = *tokens.add(ExecRequest{});
    now += std::chrono::seconds(1);
    CHECK(tokens.take(early).error().code() == ENOENT);
    CHECK(tokens.take(late).ok());

    for (size_t i = 0; i < Tokens::kMost; i++) {
        REQUIRE(tokens.add(PortForwardRequest{}).ok());
    }
    CHECK(tokens.add(PortForwardRequest{}).error().code() == ENOSPC);
    now += Tokens::kLifetime + std::chrono::seconds(1);
    CHECK(tokens.add(PortForwardRequest{}).ok());
}

TEST_CASE("how an exec ended, as its error stream tells") {
    CHECK(RemoteStatus::exited(0, {}).text(4) == R"({"status":"Success"})");
    CHECK(RemoteStatus::exited(0, {}).text(3) == "");
    const RemoteStatus seven = RemoteStatus::exited(7, {"sh", "-c", "exit 7"});
    CHECK(
        seven.text(5) ==
        R"({"details":{"causes":[{"message":"7","reason":"ExitCode"}]},"message":"command terminated )"
        R"(with non-zero exit code: error executing command [sh -c exit 7], exit code 7",)"
        R"("reason":"NonZeroExitCode","status":"Failure"})");
    CHECK(seven.text(1) ==
          "command terminated with non-zero exit code: error executing command "
          "[sh -c exit 7], exit code 7");
    CHECK(RemoteStatus::failed("x\xff").text(4).find("InternalError") != std::string::npos);
}

TEST_CASE("terminal sizes: as they come, until something is none") {
    SizeParser parser;
    CHECK(parser.feed("{\"Width\":80,").empty());
    auto sizes = parser.feed("\"Height\":24}\n{\"width\":1,\"height\":99999}");
    REQUIRE(sizes.size() == 2);
    CHECK(sizes[0].columns == 80);
    CHECK(sizes[0].rows == 24);
    CHECK(sizes[1].rows == 0xffff);
    CHECK(parser.feed("nonsense}").empty());
    CHECK(parser.feed("{\"Width\":80,\"Height\":24}").empty());
    SizeParser flooded;
    CHECK(flooded.feed(std::string(100000, ' ')).empty());
    CHECK(flooded.feed("{\"Width\":80,\"Height\":24}").empty());
}
