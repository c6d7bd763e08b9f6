#include "cri/streaming/channel_connection.h"
#include "cri/streaming/spdy_connection.h"
#include "unit/cri/streaming/fake_transport.h"
#include "unit/cri/test.h"

using namespace moat::cri;
using namespace moat::cri::streaming;

namespace {

/// A SPDY client, and what the server made of it.
struct Spdy {
    explicit Spdy(bool accepts = true)
        : connection(
              std::make_shared<SpdyConnection>(transport, [this, accepts](const StreamPtr& stream) {
                  streams.push_back(stream);
                  return accepts;
              })) {
        connection->start([this] { closed = true; });
    }
    std::string take() { return std::exchange(transport->sent, ""); }

    std::shared_ptr<FakeTransport> transport = std::make_shared<FakeTransport>();
    std::vector<StreamPtr> streams;
    std::shared_ptr<SpdyConnection> connection;
    FrameWriter client;
    bool closed = false;
};

std::string taken(const StreamPtr& stream) {
    std::string bytes = "(nothing)";
    stream->read([&](std::string some) { bytes = some.empty() ? "(end)" : std::move(some); });
    stream->read(nullptr);
    return bytes;
}

std::string rst(uint32_t id, RstStatus status) { return FrameWriter::rst_stream(id, status); }

}  // namespace

TEST_CASE("SPDY connection: streams are replied to and carry bytes both ways") {
    Spdy spdy;
    spdy.transport->arrive(spdy.client.syn_stream(1, {{"streamtype", "stdin"}}));
    REQUIRE(spdy.streams.size() == 1);
    CHECK(spdy.streams[0]->header("streamtype") == "stdin");
    CHECK(spdy.streams[0]->header("nothing") == "");
    FrameWriter server;
    CHECK(spdy.take() == server.syn_reply(1, {}));
    spdy.transport->arrive(FrameWriter::data(1, "hello", false));
    CHECK(taken(spdy.streams[0]) == "hello");
    CHECK(taken(spdy.streams[0]) == "(nothing)");
    bool sent = false;
    spdy.streams[0]->write("answer", [&](bool ok) { sent = ok; });
    CHECK(sent);
    CHECK(spdy.take() == FrameWriter::data(1, "answer", false));
    spdy.transport->arrive(FrameWriter::data(1, "rest", true));
    CHECK(taken(spdy.streams[0]) == "rest");
    CHECK(taken(spdy.streams[0]) == "(end)");
    // Half-closed: our side still works, and ends by itself.
    spdy.streams[0]->write("late", [&](bool ok) { sent = ok; });
    CHECK(sent);
    spdy.streams[0]->finish();
    spdy.streams[0]->write("too late", [&](bool ok) { sent = ok; });
    CHECK_FALSE(sent);
    CHECK(spdy.take() == FrameWriter::data(1, "late", false) + FrameWriter::data(1, "", true));
}

TEST_CASE("SPDY connection: ids must be odd and grow") {
    Spdy spdy;
    spdy.transport->arrive(spdy.client.syn_stream(5, {}));
    spdy.take();
    for (const uint32_t id : {0u, 2u, 3u, 5u}) {
        spdy.transport->arrive(spdy.client.syn_stream(id, {}));
        CHECK(spdy.take() == rst(id, RstStatus::kProtocolError));
    }
    CHECK(spdy.streams.size() == 1);
    // Frames of streams that are not there are late, not wrong.
    spdy.transport->arrive(FrameWriter::data(9, "x", true) + rst(11, RstStatus::kCancel));
    CHECK(spdy.take() == "");
    CHECK_FALSE(spdy.closed);
}

TEST_CASE("SPDY connection: a stream that is not wanted is reset, too many are refused") {
    Spdy refusing(false);
    refusing.transport->arrive(refusing.client.syn_stream(1, {}));
    CHECK(refusing.take() == rst(1, RstStatus::kCancel));

    Spdy spdy;
    for (uint32_t i = 0; i < SpdyConnection::kMaxStreams; i++) {
        spdy.transport->arrive(spdy.client.syn_stream(2 * i + 1, {}));
    }
    spdy.take();
    const uint32_t next = 2 * SpdyConnection::kMaxStreams + 1;
    spdy.transport->arrive(spdy.client.syn_stream(next, {}));
    CHECK(spdy.take() == rst(next, RstStatus::kRefusedStream));
    // One that ends makes room.
    spdy.transport->arrive(rst(1, RstStatus::kCancel) + spdy.client.syn_stream(next + 2, {}));
    CHECK(spdy.streams.size() == SpdyConnection::kMaxStreams + 1);
}

TEST_CASE("SPDY connection: pings are answered, a GOAWAY lets streams end") {
    Spdy spdy;
    spdy.transport->arrive(FrameWriter::ping(3) + FrameWriter::ping(2));
    CHECK(spdy.take() == FrameWriter::ping(3));
    spdy.transport->arrive(spdy.client.syn_stream(1, {}) + FrameWriter::goaway(0, 0));
    CHECK_FALSE(spdy.closed);
    spdy.take();
    spdy.transport->arrive(spdy.client.syn_stream(3, {}));
    CHECK(spdy.take() == "");
    spdy.transport->arrive(rst(1, RstStatus::kCancel));
    CHECK(spdy.closed);
}

TEST_CASE("SPDY connection: one who is reset reads the end and cannot write") {
    Spdy spdy;
    spdy.transport->arrive(spdy.client.syn_stream(1, {}));
    spdy.transport->arrive(FrameWriter::data(1, "last", false) + rst(1, RstStatus::kCancel));
    CHECK_FALSE(spdy.streams[0]->open());
    CHECK(taken(spdy.streams[0]) == "last");
    CHECK(taken(spdy.streams[0]) == "(end)");
}

TEST_CASE("SPDY connection: who does not read is not read from") {
    Spdy spdy;
    spdy.transport->arrive(spdy.client.syn_stream(1, {}));
    size_t sent = 0;
    const std::string chunk(kChunk, 'x');
    while (spdy.transport->wanted()) {
        spdy.transport->arrive(FrameWriter::data(1, chunk, false));
        sent += chunk.size();
        REQUIRE(sent < 2 * kMaxUnreadOfStream);
    }
    CHECK(sent > kMaxUnreadOfStream);
    (void)taken(spdy.streams[0]);
    CHECK(spdy.transport->wanted());
    spdy.transport->arrive(FrameWriter::data(1, std::string(4 * kChunk, 'x'), false));
    CHECK_FALSE(spdy.transport->wanted());
    spdy.streams[0]->discard();
    CHECK(spdy.transport->wanted());
    CHECK(taken(spdy.streams[0]) == "(nothing)");
}

TEST_CASE("SPDY connection: no piece is read while another is taken apart") {
    Spdy spdy;
    spdy.transport->arrive(spdy.client.syn_stream(1, {}));
    bool wanted = false;
    spdy.streams[0]->read([&](const std::string&) {
        wanted = spdy.transport->wanted();
        spdy.streams[0]->read([&](const std::string&) { wanted |= spdy.transport->wanted(); });
    });
    spdy.transport->arrive(FrameWriter::data(1, "a", false) + FrameWriter::data(1, "b", false));
    CHECK_FALSE(wanted);
    CHECK(spdy.transport->wanted());
}

TEST_CASE("SPDY connection: answers that nobody takes stop the reading") {
    Spdy spdy;
    spdy.transport->at_once = false;
    std::string pings;
    for (int i = 0; i < 1000; i++) {
        pings += FrameWriter::ping(1);
    }
    int rounds = 0;
    while (spdy.transport->arrive(pings)) {
        REQUIRE(++rounds < 1000);
    }
    CHECK(spdy.transport->writes == 1);
    while (spdy.transport->writer) {
        spdy.transport->done(true);
    }
    CHECK(spdy.transport->wanted());
}

TEST_CASE("SPDY connection: a client that has gone ends everything once") {
    Spdy spdy;
    spdy.transport->arrive(spdy.client.syn_stream(1, {}));
    spdy.transport->at_once = false;
    int lost = 0;
    spdy.streams[0]->write("a", [&](bool ok) { lost += ok ? 0 : 1; });
    spdy.streams[0]->write("b", [&](bool ok) { lost += ok ? 0 : 1; });
    spdy.transport->done(false);  // the reply
    CHECK(lost == 2);
    CHECK(spdy.closed);
    CHECK(taken(spdy.streams[0]) == "(end)");
    spdy.transport->gone();
}

TEST_CASE("SPDY connection: close says good-bye behind all that was written") {
    Spdy spdy;
    spdy.transport->arrive(spdy.client.syn_stream(1, {}));
    spdy.transport->arrive(spdy.client.syn_stream(3, {}));
    spdy.take();
    spdy.transport->at_once = false;
    spdy.streams[0]->write("status", [](bool) {});
    spdy.streams[0]->finish();
    bool done = false;
    spdy.connection->close([&] { done = true; });
    CHECK_FALSE(spdy.transport->closed);
    spdy.transport->at_once = true;
    spdy.transport->done(true);
    CHECK(spdy.transport->closed);
    CHECK(done);
    CHECK_FALSE(spdy.closed);  // whoever closes need not be told
    CHECK(spdy.take() == FrameWriter::data(1, "status", false) + FrameWriter::data(1, "", true) +
                             rst(1, RstStatus::kCancel) + rst(3, RstStatus::kCancel) +
                             FrameWriter::goaway(3, 0));
}

TEST_CASE("SPDY connection: what is not SPDY ends it") {
    Spdy spdy;
    spdy.transport->arrive(std::string(8, '\xff'));
    CHECK(spdy.closed);
}

TEST_CASE("channels: a byte in front says which") {
    const auto transport = std::make_shared<FakeTransport>();
    const auto connection = std::make_shared<ChannelConnection>(
        transport, ChannelConnection::Coding::kBinary, ChannelConnection::CloseSignal::kYes, 5);
    bool closed = false;
    connection->start([&] { closed = true; });
    using namespace std::string_literals;
    transport->arrive("\0hello"s);
    CHECK(taken(connection->channel(0)) == "hello");
    transport->arrive("\4{"s, true, false);
    transport->arrive("}", false, true);
    CHECK(taken(connection->channel(4)) == "{}");
    transport->arrive("");
    transport->arrive("\7nobody's"s);
    connection->channel(1)->write("out", [](bool) {});
    CHECK(transport->sent == "\1out");
    // v5: our reader sees the end, the channel can still be written to.
    transport->arrive("\xff\0"s);
    CHECK(taken(connection->channel(0)) == "(end)");
    CHECK(connection->channel(0)->open());
    CHECK_FALSE(closed);
    transport->arrive("\xff\x05"s);  // no such channel
    CHECK(closed);
}

TEST_CASE("channels: a close signal in pieces, and one that is too long") {
    for (const bool fine : {true, false}) {
        const auto transport = std::make_shared<FakeTransport>();
        const auto connection = std::make_shared<ChannelConnection>(
            transport, ChannelConnection::Coding::kBinary, ChannelConnection::CloseSignal::kYes, 1);
        bool closed = false;
        connection->start([&] { closed = true; });
        using namespace std::string_literals;
        transport->arrive("\xff"s, true, false);
        transport->arrive(fine ? "\0"s : "\0\0"s, false, true);
        CHECK(closed == !fine);
    }
}

TEST_CASE("channels: before v5 255 is only a channel that is not there") {
    const auto transport = std::make_shared<FakeTransport>();
    const auto connection = std::make_shared<ChannelConnection>(
        transport, ChannelConnection::Coding::kBinary, ChannelConnection::CloseSignal::kNo, 5);
    bool closed = false;
    connection->start([&] { closed = true; });
    using namespace std::string_literals;
    transport->arrive("\xff\0"s);
    CHECK(taken(connection->channel(0)) == "(nothing)");
    CHECK_FALSE(closed);
}

TEST_CASE("channels: base64, however it is cut") {
    const std::string message = "0aGVsbG8gd29ybGQ=";
    for (size_t cut = 1; cut < message.size(); cut++) {
        const auto transport = std::make_shared<FakeTransport>();
        const auto connection = std::make_shared<ChannelConnection>(
            transport, ChannelConnection::Coding::kBase64, ChannelConnection::CloseSignal::kNo, 5);
        bool closed = false;
        connection->start([&] { closed = true; });
        transport->arrive(message.substr(0, cut), true, false);
        transport->arrive(message.substr(cut), false, true);
        std::string all;
        for (std::string some = taken(connection->channel(0)); some != "(nothing)";
             some = taken(connection->channel(0))) {
            all += some;
        }
        CHECK(all == "hello world");
        connection->channel(2)->write("hello", [](bool) {});
        CHECK(transport->sent == "2aGVsbG8=");
        CHECK_FALSE(closed);
        transport->arrive("0not base64!");
        CHECK(closed);
    }
}
