#include "cri/streaming/spdy_frame.h"

#include <random>
#include <vector>

#include "unit/cri/test.h"

using namespace moat::cri;
using namespace moat::cri::streaming;

namespace {

/// Writes down what it is told.
struct Recorder final : FrameSink {
    std::vector<std::string> told;
    std::string bytes;
    SpdyHeaders last;

    void on_syn_stream(uint32_t id, SpdyHeaders headers, bool fin, bool unidirectional) override {
        last = std::move(headers);
        told.push_back("syn " + std::to_string(id) + (fin ? " fin" : "") +
                       (unidirectional ? " one way" : ""));
    }
    void on_syn_reply(uint32_t id, SpdyHeaders headers, bool fin) override {
        last = std::move(headers);
        told.push_back("reply " + std::to_string(id) + (fin ? " fin" : ""));
    }
    void on_headers(uint32_t id, SpdyHeaders, bool) override {
        told.push_back("headers " + std::to_string(id));
    }
    void on_rst_stream(uint32_t id, uint32_t status) override {
        told.push_back("rst " + std::to_string(id) + " " + std::to_string(status));
    }
    void on_ping(uint32_t id) override { told.push_back("ping " + std::to_string(id)); }
    void on_goaway(uint32_t id) override { told.push_back("goaway " + std::to_string(id)); }
    void on_data(uint32_t id, std::string_view piece, bool fin) override {
        bytes += piece;
        if (fin) {
            told.push_back("end " + std::to_string(id));
        }
    }
};

std::string big_endian(std::initializer_list<uint32_t> words) {
    std::string out;
    for (const uint32_t word : words) {
        for (int shift = 24; shift >= 0; shift -= 8) {
            out += static_cast<char>(word >> shift);
        }
    }
    return out;
}

std::string everything() {
    FrameWriter writer;  // one statement a frame: headers are compressed in this order
    std::string all = writer.syn_stream(1, {{"streamtype", "error"}});
    all += writer.syn_stream(3, {{"streamtype", "data"}, {"port", "80"}, {"x", "1"}, {"x", "2"}},
                             true);
    all += FrameWriter::data(1, std::string(70000, 'd'), false);
    all += FrameWriter::ping(7);
    all += FrameWriter::data(1, "", true);
    all += FrameWriter::rst_stream(3, RstStatus::kCancel);
    all += writer.syn_reply(5, {});
    all += FrameWriter::goaway(3, 0);
    return all;
}

const std::vector<std::string> kEverything = {"syn 1",   "syn 3 fin", "ping 7",  "end 1",
                                              "rst 3 5", "reply 5",   "goaway 3"};

}  // namespace

TEST_CASE("SPDY frames: what is written is read again") {
    Recorder seen;
    FrameReader reader;
    REQUIRE(reader.feed(everything(), seen).ok());
    CHECK(seen.told == kEverything);
    CHECK(seen.bytes == std::string(70000, 'd'));
}

TEST_CASE("SPDY frames: however the bytes are cut") {
    const std::string all = everything();
    for (const size_t step :
         {size_t{1}, size_t{2}, size_t{7}, size_t{8}, size_t{9}, size_t{4096}}) {
        Recorder seen;
        FrameReader reader;
        for (size_t at = 0; at < all.size(); at += step) {
            REQUIRE(reader.feed(std::string_view(all).substr(at, step), seen).ok());
        }
        CHECK(seen.told == kEverything);
        CHECK(seen.bytes.size() == 70000);
    }
}

TEST_CASE("SPDY frames: headers in lower case, several values of a name") {
    Recorder seen;
    FrameReader reader;
    FrameWriter writer;
    REQUIRE(reader.feed(writer.syn_stream(1, {{"StreamType", "data"}, {"x", "1"}, {"x", ""}}), seen)
                .ok());
    CHECK(seen.last == SpdyHeaders{{"streamtype", "data"}, {"x", "1"}, {"x", ""}});
}

TEST_CASE("SPDY frames: those of moby/spdystream") {
    // What its framer wrote for SYN_STREAM 1 with the headers streamtype: error.
    Recorder seen;
    FrameReader reader;
    FrameWriter ours;
    REQUIRE(reader.feed(ours.syn_stream(1, {{"streamtype", "error"}}), seen).ok());
    // SETTINGS, WINDOW_UPDATE and HEADERS without effect on what follows.
    REQUIRE(
        reader.feed(big_endian({0x80030004, 12, 1, 7, 65536, 0x80030009, 8, 1, 100}), seen).ok());
    REQUIRE(reader.feed(ours.syn_stream(3, {{"streamtype", "stdin"}}), seen).ok());
    CHECK(seen.told == std::vector<std::string>{"syn 1", "syn 3"});
}

TEST_CASE("SPDY frames: what is malformed ends the connection") {
    const auto refused = [](const std::string& bytes) {
        Recorder seen;
        FrameReader reader;
        const Status fed = reader.feed(bytes, seen);
        CHECK(seen.told.empty());
        return !fed.ok() && fed.error().code() == EBADMSG;
    };
    CHECK(refused(big_endian({0x80020006, 4, 1})));           // another version
    CHECK(refused(big_endian({0x80030005, 4, 1})));           // no such type
    CHECK(refused(big_endian({0x80030001, 9, 1, 0}) + "x"));  // SYN_STREAM too short
    CHECK(refused(big_endian({0x80030003, 4, 1})));           // RST_STREAM too short
    CHECK(refused(big_endian({0x80030006, 0})));              // PING without an id
    CHECK(refused(big_endian({0x80030007, 4, 1})));           // GOAWAY too short
    CHECK(refused(big_endian({0x80030001, 0xffffff})));       // longer than we hold
    CHECK(refused(big_endian({0x80030001, 14, 1, 0}) + std::string(6, '\xff')));  // no zlib
}

TEST_CASE("SPDY frames: a bomb of headers is not inflated") {
    FrameWriter writer;
    Recorder seen;
    FrameReader reader;
    const std::string bomb = writer.syn_stream(1, {{"x", std::string(20 << 20, 'a')}});
    CHECK(bomb.size() < kMaxControlFrame);
    const Status fed = reader.feed(bomb, seen);
    CHECK_FALSE(fed.ok());
    CHECK(seen.told.empty());

    SpdyHeaders many;
    for (size_t i = 0; i <= kMaxHeaders; i++) {
        many.emplace("h" + std::to_string(i), "");
    }
    FrameWriter another;
    FrameReader fresh;
    CHECK_FALSE(fresh.feed(another.syn_stream(1, many), seen).ok());
    FrameWriter third;
    FrameReader fresher;
    CHECK_FALSE(
        fresher.feed(third.syn_stream(1, {{"x", std::string(kMaxHeaders + 1, '\0')}}), seen).ok());
}

TEST_CASE("SPDY frames: damage never does more than end the connection") {
    const std::string whole = everything();
    std::mt19937 random(20261125);
    for (int round = 0; round < 3000; round++) {
        std::string bytes = whole;
        for (int i = 0; i < 1 + round % 4; i++) {
            bytes[random() % 200] = static_cast<char>(random());
        }
        Recorder seen;
        FrameReader reader;
        (void)reader.feed(bytes, seen);
        CHECK(seen.bytes.size() <= whole.size());
    }
}
