// A WebSocket client's messages, which Beast has already taken apart: length, flags, bytes.

#include <cstdlib>

#include "cri/streaming/channel_connection.h"
#include "cri/streaming/remote_status.h"
#include "unit/cri/streaming/fake_transport.h"

using namespace moat::cri::streaming;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) {
        return 0;
    }
    const uint8_t mode = data[0];
    const auto transport = std::make_shared<FakeTransport>();
    const auto connection = std::make_shared<ChannelConnection>(
        transport,
        (mode & 1) != 0 ? ChannelConnection::Coding::kBase64 : ChannelConnection::Coding::kBinary,
        (mode & 2) != 0 ? ChannelConnection::CloseSignal::kYes
                        : ChannelConnection::CloseSignal::kNo,
        5);
    SizeParser sizes;
    bool closed = false;
    connection->start([&] {
        if (std::exchange(closed, true)) {
            abort();
        }
    });
    bool begins = true;
    for (size_t at = 1; at + 1 < size;) {
        const size_t length = std::min<size_t>(data[at] & 127, size - at - 1);
        const bool ends = (data[at] & 128) != 0;
        if (!transport->arrive({reinterpret_cast<const char*>(data) + at + 1, length}, begins,
                               ends)) {
            break;
        }
        begins = ends;
        at += length + 1;
        if ((mode & 4) != 0) {
            connection->channel(4)->read(
                [&](const std::string& bytes) { (void)sizes.feed(bytes); });
        }
        connection->channel(1)->write("x", [](bool) {});
    }
    for (size_t i = 0; i < 5; i++) {
        connection->channel(i)->read(nullptr);
    }
    connection->close([] {});
    transport->gone();
    return 0;
}
