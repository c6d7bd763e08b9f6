#include "cri/streaming/channel_connection.h"

#include <algorithm>

#include "cri/base/base64.h"

namespace moat::cri::streaming {

ChannelConnection::ChannelConnection(std::shared_ptr<Transport> transport, Coding coding,
                                     CloseSignal close_signal, size_t channels)
    : Connection(std::move(transport)), coding_(coding), close_signal_(close_signal) {
    for (size_t i = 0; i < channels; i++) {
        channels_.push_back(
            std::make_shared<Stream>(*this, static_cast<uint32_t>(i), Stream::Headers()));
    }
}

ChannelConnection::~ChannelConnection() {
    for (const StreamPtr& channel : channels_) {
        channel->orphan();
    }
}

bool ChannelConnection::received(const Transport::Piece& piece) {
    std::string_view bytes = piece.bytes;
    if (piece.begins_message) {
        current_.reset();
        held_.clear();
    }
    if (!current_) {
        if (bytes.empty()) {
            return true;  // an empty message says nothing
        }
        current_ = static_cast<uint8_t>(bytes.front());
        if (coding_ == Coding::kBase64) {
            current_ = static_cast<uint8_t>(*current_ - '0');
        }
        bytes.remove_prefix(1);
    }
    const bool fine = payload(bytes, piece.ends_message);
    if (piece.ends_message) {
        current_.reset();
        held_.clear();
    }
    return fine;
}

bool ChannelConnection::payload(std::string_view bytes, bool last) {
    if (close_signal_ == CloseSignal::kYes && *current_ == kCloseChannel) {
        held_ += bytes.substr(0, 2);
        if (!last) {
            return held_.size() < 2;
        }
        if (held_.size() != 1 || static_cast<uint8_t>(held_[0]) >= channels_.size()) {
            return false;
        }
        channels_[static_cast<uint8_t>(held_[0])]->remote_end();
        return true;
    }
    if (*current_ >= channels_.size()) {
        return true;
    }
    // Kept alive: its reader may close the connection.
    const StreamPtr channel = channels_[*current_];
    if (coding_ == Coding::kBinary) {
        channel->arrived(bytes);
        return true;
    }
    held_ += bytes;
    // Whole groups of four are decoded as they come; a message may be longer than what we hold.
    const size_t whole = last ? held_.size() : held_.size() / 4 * 4;
    const auto decoded = base64_decode(held_.substr(0, whole));
    if (!decoded.ok()) {
        return false;
    }
    held_.erase(0, whole);
    channel->arrived(*decoded);
    return true;
}

void ChannelConnection::write_data(Stream& stream, std::string bytes,
                                   Transport::WriteHandler handler) {
    std::string message;
    if (coding_ == Coding::kBinary) {
        message += static_cast<char>(stream.number());
        message += bytes;
    } else {
        message += static_cast<char>('0' + stream.number());
        message += base64_encode(bytes);
    }
    send(std::move(message), std::move(handler));
}

void ChannelConnection::reset_stream(Stream& stream) { stream.detach(); }

void ChannelConnection::detach_streams() {
    for (const StreamPtr& channel : channels_) {
        channel->detach();
    }
}

bool ChannelConnection::stream_full() const {
    return std::any_of(channels_.begin(), channels_.end(), [](const StreamPtr& channel) {
        return channel->unread() > kMaxUnreadOfStream;
    });
}

}  // namespace moat::cri::streaming
