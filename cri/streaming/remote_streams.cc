// Exec and attach: how the client's streams come together, and how they end.

#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include "cri/streaming/channel_connection.h"
#include "cri/streaming/remote_command.h"
#include "cri/streaming/spdy_connection.h"

namespace moat::cri::streaming {

namespace {

constexpr std::chrono::seconds kStreamCreation{30};

enum Channel : size_t { kStdin, kStdout, kStderr, kError, kResize, kChannels };

/// SPDY: the client makes one stream after the other and names each in its header.
struct Gathering : std::enable_shared_from_this<Gathering> {
    explicit Gathering(boost::asio::io_context& io) : timer(io) {}

    bool tty = false, in = false, out = false, err = false;
    RemoteStreams streams;
    boost::asio::steady_timer timer;
    std::function<void(RemoteStreams)> ready;
    std::function<void()> finished;

    StreamPtr* slot(const std::string& type) {
        if (type == "error") {
            return &streams.error;
        }
        if (type == "stdin") {
            return in ? &streams.in : nullptr;
        }
        if (type == "stdout") {
            return out ? &streams.out : nullptr;
        }
        if (type == "stderr") {
            return err ? &streams.err : nullptr;
        }
        return type == "resize" && tty && streams.version >= 3 ? &streams.resize : nullptr;
    }

    bool complete() const {
        return streams.error && (!in || streams.in) && (!out || streams.out) &&
               (!err || streams.err) && (!tty || streams.version < 3 || streams.resize);
    }

    bool add(const StreamPtr& stream) {
        StreamPtr* const place = slot(stream->header("streamtype"));
        if (place == nullptr || *place != nullptr) {
            return false;
        }
        *place = stream;
        if (complete()) {
            timer.cancel();
            // Not from within the frame that made the stream.
            boost::asio::post(timer.get_executor(), [self = shared_from_this()] {
                if (const auto go = std::exchange(self->ready, nullptr)) {
                    self->finished = nullptr;
                    go(std::move(self->streams));
                }
            });
        }
        return true;
    }

    void give_up() {
        ready = nullptr;
        streams = {};
        if (const auto done = std::exchange(finished, nullptr)) {
            done();
        }
    }
};

}  // namespace

void open_remote_streams(Client client, bool tty, bool in, bool out, bool err,
                         std::function<void(RemoteStreams)> ready, std::function<void()> finished) {
    const int version = protocol_version(client.decision.protocol);
    if (client.decision.kind == Decision::Kind::kWebSocket) {
        const bool base64 = client.decision.protocol.find("base64") != std::string::npos;
        const auto connection = std::make_shared<ChannelConnection>(
            client.transport,
            base64 ? ChannelConnection::Coding::kBase64 : ChannelConnection::Coding::kBinary,
            version >= 5 ? ChannelConnection::CloseSignal::kYes
                         : ChannelConnection::CloseSignal::kNo,
            kChannels);
        const auto channel = [&](Channel number, bool wanted) -> StreamPtr {
            if (!wanted) {
                connection->channel(number)->discard();
                return nullptr;
            }
            return connection->channel(number);
        };
        RemoteStreams streams;
        streams.connection = connection;
        streams.version = version;
        streams.in = channel(kStdin, in);
        streams.out = channel(kStdout, out);
        streams.err = channel(kStderr, err);
        streams.error = channel(kError, true);
        streams.resize = channel(kResize, tty);
        // The client learns by an empty message that it is connected.
        (out ? streams.out : err ? streams.err : streams.error)->write("", [](bool) {});
        ready(std::move(streams));
        return;
    }
    const auto gathering = std::make_shared<Gathering>(client.io);
    gathering->tty = tty;
    gathering->in = in;
    gathering->out = out;
    gathering->err = err;
    gathering->ready = std::move(ready);
    gathering->finished = std::move(finished);
    gathering->streams.version = version;
    const auto connection = std::make_shared<SpdyConnection>(
        client.transport, [gathering](const StreamPtr& stream) { return gathering->add(stream); });
    gathering->streams.connection = connection;
    gathering->timer.expires_after(kStreamCreation);
    gathering->timer.async_wait([gathering](const boost::system::error_code& error) {
        if (!error) {
            spdlog::info("streaming: a client did not make its streams within {} s",
                         kStreamCreation.count());
            gathering->give_up();
        }
    });
    connection->start([gathering] { gathering->give_up(); });
}

void RemoteSession::end(const RemoteStatus& status) {
    if (std::exchange(ended_, true)) {
        return;
    }
    const std::string text = status.text(streams_.version);
    if (!text.empty() && streams_.error->open()) {
        streams_.error->write(text, [](bool) {});
    }
    for (const StreamPtr& stream : {streams_.out, streams_.err, streams_.error}) {
        if (stream != nullptr) {
            stream->finish();
        }
    }
    streams_.connection->close(finished_);
}

void RemoteSession::read_sizes(std::function<void(SizeParser::Size)> on_size,
                               std::function<void()> on_end) {
    streams_.resize->read([this, on_size, on_end](const std::string& bytes) {
        if (bytes.empty()) {
            on_end();
            return;
        }
        for (const SizeParser::Size& size : sizes_.feed(bytes)) {
            on_size(size);
        }
        read_sizes(on_size, on_end);
    });
}

}  // namespace moat::cri::streaming
