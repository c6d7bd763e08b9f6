#include "cri/streaming/spdy_connection.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

namespace moat::cri::streaming {

SpdyConnection::~SpdyConnection() {
    for (const auto& [id, stream] : streams_) {
        stream->orphan();
    }
}

StreamPtr SpdyConnection::find(uint32_t id) const {
    const auto it = streams_.find(id);
    return it == streams_.end() ? nullptr : it->second;
}

/// Both directions have ended.
void SpdyConnection::forget(uint32_t id) {
    const StreamPtr stream = find(id);
    if (stream == nullptr) {
        return;
    }
    streams_.erase(id);
    stream->detach();
    if (goaway_received_ && streams_.empty()) {
        hang_up();
    }
}

bool SpdyConnection::received(const Transport::Piece& piece) {
    const Status fed = reader_.feed(piece.bytes, *this);
    if (!fed.ok()) {
        spdlog::debug("streaming: {}", fed.error().message());
    }
    return fed.ok() && !(goaway_received_ && streams_.empty());
}

void SpdyConnection::on_syn_stream(uint32_t id, SpdyHeaders headers, bool fin,
                                   bool unidirectional) {
    if (goaway_received_) {
        return;
    }
    // Odd, and each higher than all before.
    if (id % 2 == 0 || id <= last_id_) {
        send(FrameWriter::rst_stream(id, RstStatus::kProtocolError));
        return;
    }
    last_id_ = id;
    if (streams_.size() >= kMaxStreams || unidirectional) {
        send(FrameWriter::rst_stream(id, RstStatus::kRefusedStream));
        return;
    }
    const auto stream = std::make_shared<Stream>(*this, id, std::move(headers));
    streams_[id] = stream;
    if (!on_stream_(stream)) {
        stream->reset();
        return;
    }
    send(writer_.syn_reply(id, {}));
    if (fin) {
        remote_finished(id);
    }
}

void SpdyConnection::on_headers(uint32_t id, SpdyHeaders, bool fin) {
    if (fin) {
        remote_finished(id);
    }
}

void SpdyConnection::on_rst_stream(uint32_t id, uint32_t) { forget(id); }

void SpdyConnection::on_ping(uint32_t id) {
    // Even numbers are those of our own, and we send none.
    if (id % 2 == 1) {
        send(FrameWriter::ping(id));
    }
}

void SpdyConnection::on_goaway(uint32_t) { goaway_received_ = true; }

void SpdyConnection::on_data(uint32_t id, std::string_view bytes, bool fin) {
    const StreamPtr stream = find(id);
    if (stream == nullptr) {
        return;  // has gone already; its last frames were under way
    }
    stream->arrived(bytes);
    if (fin) {
        remote_finished(id);
    }
}

void SpdyConnection::remote_finished(uint32_t id) {
    const StreamPtr stream = find(id);
    if (stream == nullptr || stream->remote_ended()) {
        return;
    }
    stream->remote_end();
    if (!stream->open()) {
        streams_.erase(id);
    }
}

void SpdyConnection::write_data(Stream& stream, std::string bytes,
                                Transport::WriteHandler handler) {
    send(FrameWriter::data(stream.number(), bytes, false), std::move(handler));
}

void SpdyConnection::finish_stream(Stream& stream) {
    send(FrameWriter::data(stream.number(), {}, true));
    if (stream.remote_ended()) {
        streams_.erase(stream.number());
    }
}

void SpdyConnection::reset_stream(Stream& stream) {
    send(FrameWriter::rst_stream(stream.number(), RstStatus::kCancel));
    forget(stream.number());
}

void SpdyConnection::say_goodbye() {
    for (const auto& [id, stream] : streams_) {
        send(FrameWriter::rst_stream(id, RstStatus::kCancel));
    }
    send(FrameWriter::goaway(last_id_, 0));
}

void SpdyConnection::detach_streams() {
    for (const auto& [id, stream] : std::exchange(streams_, {})) {
        stream->detach();
    }
}

bool SpdyConnection::stream_full() const {
    return std::any_of(streams_.begin(), streams_.end(), [](const auto& entry) {
        return entry.second->unread() > kMaxUnreadOfStream;
    });
}

}  // namespace moat::cri::streaming
