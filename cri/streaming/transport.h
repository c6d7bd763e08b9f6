#pragma once

// The transports over Boost.Asio and Boost.Beast. `S` is tcp::socket or ssl::stream<tcp::socket>.

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/ssl.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "cri/streaming/stream.h"

namespace moat::cri::streaming {

using TcpSocket = boost::asio::ip::tcp::socket;
using TlsSocket = boost::asio::ssl::stream<TcpSocket>;

/// What a client gets to end its side once we have ended ours.
inline constexpr std::chrono::seconds kFarewell{2};

/// The bare connection: what SPDY speaks on.
template <typename S>
class SocketTransport final : public Transport,
                              public std::enable_shared_from_this<SocketTransport<S>> {
  public:
    /// `early`: what the client sent right behind its HTTP request.
    SocketTransport(S stream, std::string early)
        : stream_(std::move(stream)), timer_(stream_.get_executor()), early_(std::move(early)) {}

    void read(ReadHandler handler) override {
        reader_ = std::move(handler);
        if (!early_.empty()) {
            boost::asio::post(stream_.get_executor(), [self = this->shared_from_this()] {
                const std::string bytes = std::exchange(self->early_, "");
                if (const auto reader = std::exchange(self->reader_, nullptr)) {
                    reader({.bytes = bytes});
                }
            });
            return;
        }
        fill();
    }

    void write(std::string bytes, WriteHandler handler) override {
        out_ = std::move(bytes);
        boost::asio::async_write(
            stream_, boost::asio::buffer(out_),
            [self = this->shared_from_this(), handler = std::move(handler)](
                const boost::system::error_code& error, size_t) { handler(!error); });
    }

    void close(std::function<void()> closed) override {
        closed_ = std::move(closed);
        reader_ = nullptr;
        timer_.expires_after(kFarewell);
        timer_.async_wait([self = this->shared_from_this()](const auto& error) {
            if (!error) {
                self->end();
            }
        });
        // Then what the client still sends is read away: a reset because of unread bytes could
        // overtake our last frames.
        if constexpr (std::is_same_v<S, TlsSocket>) {
            if (!filling_) {
                stream_.async_shutdown(
                    [self = this->shared_from_this()](const auto&) { self->end(); });
                return;
            }
        }
        boost::system::error_code ignored;
        stream_.lowest_layer().shutdown(TcpSocket::shutdown_send, ignored);
        if (!filling_) {
            fill();
        }
    }

  private:
    void fill() {
        filling_ = true;
        stream_.async_read_some(
            boost::asio::buffer(in_),
            [self = this->shared_from_this()](const boost::system::error_code& error, size_t n) {
                self->filling_ = false;
                if (self->closed_) {
                    if (error) {
                        self->end();
                    } else {
                        self->fill();
                    }
                    return;
                }
                if (const auto reader = std::exchange(self->reader_, nullptr)) {
                    reader({.bytes = {self->in_, n}, .end = static_cast<bool>(error)});
                }
            });
    }

    void end() {
        timer_.cancel();
        if (const auto closed = std::exchange(closed_, nullptr)) {
            boost::system::error_code ignored;
            stream_.lowest_layer().close(ignored);
            closed();
        }
    }

    S stream_;
    boost::asio::steady_timer timer_;
    std::string early_;
    std::string out_;
    char in_[kChunk];
    bool filling_ = false;
    ReadHandler reader_;
    std::function<void()> closed_;
};

/// WebSocket messages, in pieces as they arrive. Pings are answered while somebody reads.
template <typename S>
class WebSocketTransport final : public Transport,
                                 public std::enable_shared_from_this<WebSocketTransport<S>> {
  public:
    enum class Text : bool { kNo, kYes };

    WebSocketTransport(S stream, Text text)
        : stream_(std::move(stream)), timer_(stream_.get_executor()), text_(text) {
        namespace websocket = boost::beast::websocket;
        stream_.read_message_max(0);  // they are never held whole
        stream_.auto_fragment(false);
        stream_.set_option(websocket::stream_base::timeout{std::chrono::seconds(30),
                                                           websocket::stream_base::none(), false});
    }

    boost::beast::websocket::stream<S>& stream() { return stream_; }

    void read(ReadHandler handler) override {
        const bool begins = begins_;
        stream_.async_read_some(
            boost::asio::buffer(in_),
            [self = this->shared_from_this(), begins, handler = std::move(handler)](
                const boost::system::error_code& error, size_t n) {
                self->begins_ = self->stream_.is_message_done();
                if (self->closing_) {
                    return;
                }
                handler({.bytes = {self->in_, n},
                         .begins_message = begins,
                         .ends_message = self->begins_,
                         .end = static_cast<bool>(error)});
            });
    }

    void write(std::string bytes, WriteHandler handler) override {
        out_ = std::move(bytes);
        stream_.binary(text_ == Text::kNo);
        stream_.async_write(
            boost::asio::buffer(out_),
            [self = this->shared_from_this(), handler = std::move(handler)](
                const boost::system::error_code& error, size_t) { handler(!error); });
    }

    void close(std::function<void()> closed) override {
        closing_ = true;
        closed_ = std::move(closed);
        timer_.expires_after(kFarewell);
        timer_.async_wait([self = this->shared_from_this()](const auto& error) {
            if (!error) {
                self->end();
            }
        });
        stream_.async_close(boost::beast::websocket::close_code::normal,
                            [self = this->shared_from_this()](const auto&) { self->end(); });
    }

  private:
    void end() {
        timer_.cancel();
        if (const auto done = std::exchange(closed_, nullptr)) {
            done();
        }
    }

    boost::beast::websocket::stream<S> stream_;
    boost::asio::steady_timer timer_;
    const Text text_;
    std::string out_;
    char in_[kChunk];
    bool begins_ = true;
    bool closing_ = false;
    std::function<void()> closed_;
};

}  // namespace moat::cri::streaming
