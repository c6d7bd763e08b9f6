#include "cri/streaming/stream.h"

#include <utility>

namespace moat::cri::streaming {

// ---------------------------------------------------------------- stream

std::string Stream::header(const std::string& name) const {
    const auto it = headers_.find(name);
    return it == headers_.end() ? "" : it->second;
}

void Stream::read(ReadHandler handler) {
    reader_ = std::move(handler);
    deliver();
}

void Stream::deliver() {
    if (!reader_ || (queue_.empty() && !remote_ended_)) {
        return;
    }
    std::string bytes;
    if (!queue_.empty()) {
        bytes = std::move(queue_.front());
        queue_.pop_front();
        unread_ -= bytes.size();
    }
    const auto taken = static_cast<ptrdiff_t>(bytes.size());
    const auto handler = std::exchange(reader_, nullptr);
    Connection* const connection = connection_;
    const auto keep = connection != nullptr ? connection->shared_from_this() : nullptr;
    handler(std::move(bytes));
    if (keep != nullptr && taken != 0) {
        keep->unread_changed(-taken);
    }
}

void Stream::discard() {
    discards_ = true;
    const auto dropped = static_cast<ptrdiff_t>(std::exchange(unread_, 0));
    queue_.clear();
    if (connection_ != nullptr && dropped != 0) {
        connection_->unread_changed(-dropped);
    }
}

void Stream::write(std::string bytes, WriteHandler handler) {
    if (!open()) {
        handler(false);
        return;
    }
    connection_->write_data(*this, std::move(bytes), std::move(handler));
}

void Stream::finish() {
    if (open()) {
        local_ended_ = true;
        connection_->finish_stream(*this);
    }
}

void Stream::reset() {
    if (connection_ != nullptr) {
        connection_->reset_stream(*this);
    }
}

void Stream::arrived(std::string_view bytes) {
    if (discards_ || remote_ended_ || bytes.empty()) {
        return;
    }
    // Small pieces share a string: a client that sends byte by byte must not cost a node for each.
    if (!queue_.empty() && queue_.back().size() + bytes.size() <= kChunk) {
        queue_.back() += bytes;
    } else {
        queue_.emplace_back(bytes);
    }
    unread_ += bytes.size();
    connection_->unread_changed(static_cast<ptrdiff_t>(bytes.size()));
    deliver();
}

void Stream::remote_end() {
    remote_ended_ = true;
    deliver();
}

void Stream::detach() {
    if (connection_ != nullptr && unread_ != 0) {
        connection_->unread_changed(-static_cast<ptrdiff_t>(unread_));
    }
    connection_ = nullptr;
    remote_end();
}

// ---------------------------------------------------------------- connection

void Connection::start(std::function<void()> closed) {
    on_closed_ = std::move(closed);
    read_more();
}

void Connection::read_more() {
    if (reading_ || closed_ || closing_ || unsent_ > kMaxUnsent || unread_ > kMaxUnread ||
        stream_full()) {
        return;
    }
    reading_ = true;
    transport_->read([self = shared_from_this()](const Transport::Piece& piece) {
        self->last_activity_ = std::chrono::steady_clock::now();
        // Still "reading" while the piece is taken apart: whoever is served from it and makes room
        // must not start the next read, which may fill the same buffer at once.
        const bool fine = self->closed_ || (!piece.end && self->received(piece));
        self->reading_ = false;
        if (!fine) {
            self->hang_up();
        }
        self->read_more();
    });
}

void Connection::unread_changed(ptrdiff_t change) {
    unread_ = static_cast<size_t>(static_cast<ptrdiff_t>(unread_) + change);
    if (change < 0) {
        read_more();
    }
}

/// No more will arrive. What is queued is still written as long as the transport takes it.
void Connection::hang_up() {
    if (closed_) {
        return;
    }
    closed_ = true;
    const auto self = shared_from_this();
    detach_streams();
    if (on_closed_) {
        std::exchange(on_closed_, nullptr)();
    }
}

void Connection::send(std::string bytes, Transport::WriteHandler handler) {
    if (broken_ || closing_) {
        if (handler) {
            handler(false);
        }
        return;
    }
    unsent_ += bytes.size();
    outgoing_.push_back({std::move(bytes), std::move(handler)});
    write_next();
}

void Connection::write_next() {
    if (writing_) {
        return;
    }
    if (outgoing_.empty()) {
        if (closing_) {
            finish_closing();
        }
        return;
    }
    writing_ = true;
    Outgoing next = std::move(outgoing_.front());
    outgoing_.pop_front();
    const size_t size = next.bytes.size();
    transport_->write(std::move(next.bytes), [self = shared_from_this(), size,
                                              handler = std::move(next.handler)](bool sent) {
        self->writing_ = false;
        self->last_activity_ = std::chrono::steady_clock::now();
        self->unsent_ -= size;
        if (!sent) {
            self->broken_ = true;
            auto lost = std::exchange(self->outgoing_, {});
            self->unsent_ = 0;
            if (handler) {
                handler(false);
            }
            for (const Outgoing& one : lost) {
                if (one.handler) {
                    one.handler(false);
                }
            }
            self->hang_up();
        } else if (handler) {
            handler(true);
        }
        self->write_next();
        self->read_more();
    });
}

void Connection::close(std::function<void()> done) {
    if (closing_) {
        return;
    }
    on_done_ = std::move(done);
    on_closed_ = nullptr;
    say_goodbye();
    closing_ = true;
    closed_ = true;
    const auto self = shared_from_this();
    detach_streams();
    write_next();
}

void Connection::finish_closing() {
    if (on_done_) {
        transport_->close(std::exchange(on_done_, nullptr));
    }
}

}  // namespace moat::cri::streaming
