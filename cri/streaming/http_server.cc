#include "cri/streaming/http_server.h"

#include <spdlog/spdlog.h>

#include <boost/beast/http.hpp>

#include "cri/streaming/transport.h"
#include "kernel/base/cleanup.h"

namespace moat::cri::streaming {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using tcp = asio::ip::tcp;
using ErrorCode = boost::system::error_code;

/// From the connection to the upgrade.
constexpr std::chrono::seconds kHandshakeTime{30};
constexpr uint32_t kMaxHttpHead = 16 << 10;

std::vector<std::string> values(const http::fields& fields, const char* name) {
    std::vector<std::string> found;
    const auto range = fields.equal_range(name);
    for (auto it = range.first; it != range.second; ++it) {
        found.emplace_back(it->value());
    }
    return found;
}

/// One connection until its upgrade or its refusal.
template <typename S>
class HttpConnection final : public std::enable_shared_from_this<HttpConnection<S>> {
  public:
    HttpConnection(asio::io_context& io, S stream, Tokens& tokens, const HttpServer::Serve& serve)
        : io_(io), stream_(std::move(stream)), timer_(io), tokens_(tokens), serve_(serve) {}

    void start() {
        timer_.expires_after(kHandshakeTime);
        timer_.async_wait([self = this->shared_from_this()](const ErrorCode& error) {
            if (!error) {
                self->io_.stop();
            }
        });
        if constexpr (std::is_same_v<S, TlsSocket>) {
            stream_.async_handshake(asio::ssl::stream_base::server,
                                    [self = this->shared_from_this()](const ErrorCode& error) {
                                        if (error) {
                                            spdlog::debug("streaming: TLS: {}", error.message());
                                            self->io_.stop();
                                        } else {
                                            self->read_request();
                                        }
                                    });
        } else {
            read_request();
        }
    }

  private:
    void read_request() {
        parser_.header_limit(kMaxHttpHead);
        parser_.body_limit(0);
        http::async_read_header(stream_, buffer_, parser_,
                                [self = this->shared_from_this()](const ErrorCode& error, size_t) {
                                    if (!error) {
                                        self->decide();
                                    } else if (error == http::error::end_of_stream) {
                                        self->io_.stop();
                                    } else {
                                        self->refuse(400, "400 Bad Request\n", {});
                                    }
                                });
    }

    void decide() {
        const auto& request = parser_.get();
        const auto target = parse_target({request.target().data(), request.target().size()});
        auto taken = target ? tokens_.take(target->token)
                            : Result<Request>(not_found("streaming: no such path"));
        // A token of another endpoint is used up, as in the reference.
        if (!taken.ok() || taken->index() != static_cast<size_t>(target->endpoint)) {
            refuse(404, "404 page not found\n", {});
            return;
        }
        Handshake handshake;
        handshake.method = std::string(request.method_string());
        handshake.target = std::string(request.target());
        handshake.connection = values(request, "Connection");
        handshake.upgrade = values(request, "Upgrade");
        handshake.stream_protocols = values(request, "X-Stream-Protocol-Version");
        handshake.websocket_protocols = values(request, "Sec-WebSocket-Protocol");
        Decision decision = negotiate(handshake, target->endpoint);
        switch (decision.kind) {
            case Decision::Kind::kRefused:
                refuse(decision.status, decision.body, decision.headers);
                return;
            case Decision::Kind::kSpdy:
                switch_to_spdy(std::move(*taken), std::move(decision));
                return;
            case Decision::Kind::kWebSocket:
            case Decision::Kind::kWebSocketTunnel:
                accept_websocket(std::move(*taken), std::move(decision));
                return;
        }
    }

    using Response = http::response<http::string_body>;

    void send(std::shared_ptr<Response> response, std::function<void(bool)> sent) {
        http::async_write(stream_, *response,
                          [self = this->shared_from_this(), response, sent = std::move(sent)](
                              const ErrorCode& error, size_t) { sent(!error); });
    }

    void refuse(int status, const std::string& body,
                const std::vector<std::pair<std::string, std::string>>& headers) {
        auto response = std::make_shared<Response>(static_cast<http::status>(status), 11);
        for (const auto& [name, value] : headers) {
            response->insert(name, value);
        }
        response->set(http::field::content_type, "text/plain; charset=utf-8");
        response->keep_alive(false);
        response->body() = body;
        response->prepare_payload();
        send(response, [self = this->shared_from_this()](bool) {
            auto transport = std::make_shared<SocketTransport<S>>(std::move(self->stream_), "");
            transport->close([self] { self->io_.stop(); });
        });
    }

    void switch_to_spdy(Request request, Decision decision) {
        auto response = std::make_shared<Response>(http::status::switching_protocols, 11);
        for (const auto& [name, value] : decision.headers) {
            response->insert(name, value);
        }
        send(response, [self = this->shared_from_this(), request = std::move(request),
                        decision = std::move(decision)](bool sent) mutable {
            if (!sent) {
                self->io_.stop();
                return;
            }
            const auto early = self->buffer_.data();
            self->hand_over(std::move(request), std::move(decision),
                            std::make_shared<SocketTransport<S>>(
                                std::move(self->stream_),
                                std::string(static_cast<const char*>(early.data()), early.size())));
        });
    }

    void accept_websocket(Request request, Decision decision) {
        using Ws = WebSocketTransport<S>;
        const bool text = decision.protocol.find("base64") != std::string::npos;
        auto transport =
            std::make_shared<Ws>(std::move(stream_), text ? Ws::Text::kYes : Ws::Text::kNo);
        transport->stream().set_option(beast::websocket::stream_base::decorator(
            [protocol = decision.protocol](beast::websocket::response_type& response) {
                if (!protocol.empty()) {
                    response.set(http::field::sec_websocket_protocol, protocol);
                }
            }));
        // It is one thing to read the request apart and another to have Beast check what
        // WebSocket wants of it: version, key.
        upgrade_ = parser_.release();
        transport->stream().async_accept(
            upgrade_, [self = this->shared_from_this(), transport, request = std::move(request),
                       decision = std::move(decision)](const ErrorCode& error) mutable {
                if (error) {
                    spdlog::debug("streaming: WebSocket: {}", error.message());
                    self->io_.stop();
                    return;
                }
                self->hand_over(std::move(request), std::move(decision), transport);
            });
    }

    void hand_over(Request request, Decision decision, std::shared_ptr<Transport> transport) {
        timer_.cancel();
        serve_({io_, std::move(request), std::move(decision), std::move(transport)},
               [&io = io_] { io.stop(); });
    }

    asio::io_context& io_;
    S stream_;
    asio::steady_timer timer_;
    Tokens& tokens_;
    const HttpServer::Serve& serve_;
    beast::flat_buffer buffer_{kMaxHttpHead + kChunk};
    http::request_parser<http::empty_body> parser_;
    http::request<http::empty_body> upgrade_;
};

}  // namespace

HttpServer::HttpServer(Tokens& tokens, Serve serve) : tokens_(tokens), serve_(std::move(serve)) {}
HttpServer::~HttpServer() { stop(); }

Status HttpServer::start(const Options& options) {
    const std::string where = options.address + " port " + std::to_string(options.port);
    ErrorCode error;
    const auto address = asio::ip::make_address(options.address, error);
    if (error) {
        return invalid_argument("streaming: address \"" + options.address +
                                "\": not an IP address");
    }
    if (options.certificate.empty() != options.key.empty()) {
        return invalid_argument("streaming: TLS needs both a certificate and a key");
    }
    if (!options.certificate.empty()) {
        tls_.emplace(asio::ssl::context::tls_server);
        tls_->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                          asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 |
                          asio::ssl::context::no_tlsv1_1);
        tls_->use_certificate_chain_file(options.certificate, error);
        if (error) {
            return invalid_argument("streaming: certificate " + options.certificate + ": " +
                                    error.message());
        }
        tls_->use_private_key_file(options.key, asio::ssl::context::pem, error);
        if (error) {
            return invalid_argument("streaming: key " + options.key + ": " + error.message());
        }
    }
    const tcp::endpoint endpoint(address, options.port);
    acceptor_.open(endpoint.protocol(), error);
    if (!error) {
        acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    }
    if (!error) {
        acceptor_.bind(endpoint, error);
    }
    if (!error) {
        acceptor_.listen(asio::socket_base::max_listen_connections, error);
    }
    if (error) {
        return Error(error.value(), "streaming: listen on " + where + ": " + error.message());
    }
    const auto local = acceptor_.local_endpoint(error);
    const std::string host =
        address.is_v6() ? "[" + address.to_string() + "]" : address.to_string();
    base_url_ =
        std::string(tls_ ? "https://" : "http://") + host + ":" + std::to_string(local.port());
    accept();
    thread_ = std::thread([this] {
        try {
            io_.run();
        } catch (const std::exception& failure) {
            spdlog::critical("streaming: accepting clients ended: {}", failure.what());
        }
    });
    return {};
}

void HttpServer::accept() {
    acceptor_.async_accept(next_, [this](const ErrorCode& error) {
        if (!error) {
            reap(false);
            if (sessions_.size() < kMaxConnections) {
                Session& session = sessions_.emplace_back();
                ErrorCode ignored;
                const bool v6 = next_.local_endpoint(ignored).protocol() == tcp::v6();
                const auto fd = next_.release(ignored);
                session.thread =
                    std::thread([this, &session, fd, v6] { run_session(session, fd, v6); });
            } else {
                spdlog::warn("streaming: {} connections: a client is turned away", kMaxConnections);
                next_.close();
            }
        } else {
            // Out of descriptors, as a rule: the next attempt would fail as fast as this one.
            retry_.expires_after(std::chrono::milliseconds(100));
            retry_.async_wait([this](const ErrorCode& cancelled) {
                if (!cancelled) {
                    accept();
                }
            });
            return;
        }
        accept();
    });
}

void HttpServer::run_session(Session& session, tcp::socket::native_handle_type fd, bool v6) {
    try {
        // Here, so that all that the session holds is gone when its thread is.
        asio::io_context io{1};
        const Cleanup out_of_sight([&] {
            const std::lock_guard lock(session.mu);
            session.io = nullptr;
        });
        {
            const std::lock_guard lock(session.mu);
            session.io = &io;
            if (session.stop) {
                io.stop();
            }
        }
        tcp::socket socket(io, v6 ? tcp::v6() : tcp::v4(), fd);
        ErrorCode ignored;
        socket.set_option(tcp::no_delay(true), ignored);
        socket.set_option(asio::socket_base::keep_alive(true), ignored);
        if (tls_) {
            std::make_shared<HttpConnection<TlsSocket>>(io, TlsSocket(std::move(socket), *tls_),
                                                        tokens_, serve_)
                ->start();
        } else {
            std::make_shared<HttpConnection<TcpSocket>>(io, std::move(socket), tokens_, serve_)
                ->start();
        }
        io.run();
    } catch (const std::exception& failure) {
        spdlog::error("streaming: a session ended: {}", failure.what());
    }
    session.ended = true;
}

/// Joins and forgets sessions that have ended, or ends them all.
void HttpServer::reap(bool all) {
    for (auto it = sessions_.begin(); it != sessions_.end();) {
        if (all || it->ended) {
            {
                const std::lock_guard lock(it->mu);
                it->stop = true;
                if (it->io != nullptr) {
                    it->io->stop();
                }
            }
            it->thread.join();
            it = sessions_.erase(it);
        } else {
            ++it;
        }
    }
}

void HttpServer::stop() {
    if (!thread_.joinable()) {
        return;
    }
    io_.stop();
    thread_.join();
    reap(true);
}

}  // namespace moat::cri::streaming
