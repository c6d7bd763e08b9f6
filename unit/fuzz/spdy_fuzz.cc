// A SPDY client's bytes. The first decides how the server behaves and how the rest is cut into
// pieces; headers may be given uncompressed, since a fuzzer hardly finds what inflates.

#include <cstdlib>

#include "cri/streaming/spdy_connection.h"
#include "unit/cri/streaming/fake_transport.h"

using namespace moat::cri::streaming;

namespace {

/// Escapes in the input: 0xfe K I makes a SYN_STREAM of id I with a header of kind K, well
/// compressed.
std::string expand(std::string_view input) {
    static const char* const kTypes[] = {"stdin", "stdout", "error", "resize", "data", ""};
    FrameWriter writer;
    std::string bytes;
    for (size_t i = 0; i < input.size(); i++) {
        if (static_cast<uint8_t>(input[i]) == 0xfe && i + 2 < input.size()) {
            const auto kind = static_cast<uint8_t>(input[i + 1]);
            bytes +=
                writer.syn_stream(static_cast<uint8_t>(input[i + 2]),
                                  {{"streamtype", kTypes[kind % 6]}, {"port", "80"}}, kind >= 128);
            i += 2;
        } else {
            bytes += input[i];
        }
    }
    return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) {
        return 0;
    }
    const uint8_t mode = data[0];
    const std::string bytes = expand({reinterpret_cast<const char*>(data) + 1, size - 1});
    const auto transport = std::make_shared<FakeTransport>();
    transport->at_once = (mode & 1) != 0;
    std::vector<StreamPtr> streams;
    const auto connection =
        std::make_shared<SpdyConnection>(transport, [&](const StreamPtr& stream) {
            streams.push_back(stream);
            if ((mode & 2) != 0) {
                stream->write("hello", [](bool) {});
            }
            if ((mode & 4) != 0) {
                stream->discard();
            }
            if ((mode & 8) != 0) {
                stream->finish();
            }
            return (mode & 16) == 0 || streams.size() % 2 == 0;
        });
    bool closed = false;
    connection->start([&] {
        if (std::exchange(closed, true)) {
            abort();  // told twice
        }
    });
    const size_t step = 1 + (mode >> 5) * 37u;
    for (size_t at = 0; at < bytes.size(); at += step) {
        if (!transport->arrive(std::string_view(bytes).substr(at, step))) {
            break;
        }
        if (!streams.empty() && (mode & 32) != 0) {
            streams.back()->read([](const std::string&) {});
        }
        transport->done(true);
    }
    for (const StreamPtr& stream : streams) {
        if (stream->unread() > 2 * kMaxUnreadOfStream) {
            abort();
        }
        stream->read(nullptr);
    }
    transport->done((mode & 64) != 0);
    transport->at_once = true;
    connection->close([] {});
    transport->done(true);
    transport->gone();
    return 0;
}
