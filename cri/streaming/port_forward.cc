#include "cri/streaming/port_forward.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <boost/asio/steady_timer.hpp>
#include <cctype>
#include <charconv>
#include <system_error>

#include "cri/cni/netns.h"
#include "cri/streaming/channel_connection.h"
#include "cri/streaming/copy.h"
#include "cri/streaming/spdy_connection.h"

namespace moat::cri::streaming {

namespace {

using ErrorCode = boost::system::error_code;

/// For the second stream of a pair, as for the streams of an exec.
constexpr std::chrono::seconds kPairTime{30};

struct Sockets {
    ScopedFd v4;
    ScopedFd v6;  ///< may be missing: a kernel without IPv6
};

/// A socket belongs to the namespace that it was made in, whoever connects it.
Result<Sockets> sockets_in(const std::string& network_namespace) {
    Sockets sockets;
    TRY(in_network_namespace(network_namespace, [&]() -> Status {
        constexpr int kType = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
        sockets.v4.reset(socket(AF_INET, kType, 0));
        if (!sockets.v4) {
            return Error::from_errno(errno, "socket");
        }
        sockets.v6.reset(socket(AF_INET6, kType, 0));
        return {};
    }));
    return sockets;
}

std::string describe(int error) {
    std::string text = std::generic_category().message(error);
    if (!text.empty()) {
        text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
    }
    return text;
}

/// 0: not a port.
uint16_t parse_port(const std::string& text) {
    uint16_t port = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    return error == std::errc() && end == text.data() + text.size() ? port : 0;
}

/// One connection of the client's: dials, then copies both ways until both have ended.
class Forward final : public std::enable_shared_from_this<Forward> {
  public:
    Forward(boost::asio::io_context& io, std::string pod_id, uint16_t port, StreamPtr data,
            StreamPtr error, std::function<void()> ended)
        : io_(io),
          pod_id_(std::move(pod_id)),
          port_(port),
          data_(std::move(data)),
          error_(std::move(error)),
          ended_(std::move(ended)) {}

    void start(const std::string& network_namespace) {
        auto sockets = sockets_in(network_namespace);
        if (!sockets.ok()) {
            fail("failed to execute portforward in network namespace \"" + network_namespace +
                 "\": " + sockets.error().message());
            return;
        }
        v6_ = std::move(sockets->v6);
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        to.sin_port = htons(port_);
        connect(std::move(sockets->v4), reinterpret_cast<sockaddr*>(&to), sizeof to,
                [self = shared_from_this()](int error) { self->try_v6(error); });
    }

  private:
    void connect(ScopedFd fd, const sockaddr* to, socklen_t size, std::function<void(int)> failed) {
        const int one = 1;
        (void)setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        const bool begun = ::connect(fd.get(), to, size) == 0 || errno == EINPROGRESS;
        const int error = errno;
        socket_ = make_descriptor(io_, std::move(fd));
        if (!begun) {
            failed(error);
            return;
        }
        socket_->async_wait(
            Descriptor::wait_write,
            [self = shared_from_this(), failed = std::move(failed)](const ErrorCode& cancelled) {
                int result = 0;
                socklen_t length = sizeof result;
                if (cancelled || getsockopt(self->socket_->native_handle(), SOL_SOCKET, SO_ERROR,
                                            &result, &length) != 0) {
                    failed(cancelled ? ECANCELED : errno);
                } else if (result != 0) {
                    failed(result);
                } else {
                    self->copy();
                }
            });
    }

    void try_v6(int v4_error) {
        if (!v6_) {
            refused(v4_error, EAFNOSUPPORT);
            return;
        }
        sockaddr_in6 to{};
        to.sin6_family = AF_INET6;
        to.sin6_addr = in6addr_loopback;
        to.sin6_port = htons(port_);
        connect(
            std::move(v6_), reinterpret_cast<sockaddr*>(&to), sizeof to,
            [self = shared_from_this(), v4_error](int error) { self->refused(v4_error, error); });
    }

    void refused(int v4_error, int v6_error) {
        const std::string port = std::to_string(port_);
        fail("failed to connect to localhost:" + port + " inside namespace \"" + pod_id_ +
             "\", IPv4: dial tcp4 127.0.0.1:" + port + ": connect: " + describe(v4_error) +
             " IPv6 dial tcp6 [::1]:" + port + ": connect: " + describe(v6_error) + " ");
    }

    void fail(const std::string& why) {
        const std::string text = "error forwarding port " + std::to_string(port_) + " to pod " +
                                 pod_id_ + ", uid : " + why;
        spdlog::info("pod {}: port-forward: {}", pod_id_, text);
        if (error_->open()) {
            error_->write(text, [](bool) {});
        }
        error_->finish();
        data_->reset();
        error_->reset();
        ended_();
    }

    void copy() {
        copying_ = 2;
        copy_in(data_, socket_, [self = shared_from_this()](CopyEnd how) {
            // A client that has gone, or has reset the stream, wants no answer any more.
            if (how == CopyEnd::kClient && !self->data_->open() && !self->finished_) {
                self->close();
            } else {
                ::shutdown(self->socket_->native_handle(), SHUT_WR);
            }
            self->direction_ended();
        });
        copy_out(socket_, data_, [self = shared_from_this()](CopyEnd how) {
            if (how == CopyEnd::kDescriptor) {
                self->finished_ = true;
                self->data_->finish();
            } else {
                self->close();
            }
            self->direction_ended();
        });
    }

    void direction_ended() {
        if (--copying_ == 0) {
            close();
            error_->finish();
            ended_();
        }
    }

    void close() {
        ErrorCode ignored;
        socket_->close(ignored);
    }

    boost::asio::io_context& io_;
    const std::string pod_id_;
    const uint16_t port_;
    const StreamPtr data_;
    const StreamPtr error_;
    const std::function<void()> ended_;
    ScopedFd v6_;
    DescriptorPtr socket_;
    int copying_ = 0;
    bool finished_ = false;  ///< the server has ended its side
};

/// SPDY: pairs of streams, one for data and one for errors, that name the same request.
class PortForwardSession final : public std::enable_shared_from_this<PortForwardSession> {
  public:
    PortForwardSession(boost::asio::io_context& io, std::string pod_id,
                       std::string network_namespace, std::function<void()> finished)
        : io_(io),
          pod_id_(std::move(pod_id)),
          network_namespace_(std::move(network_namespace)),
          finished_(std::move(finished)) {}

    void start_spdy(std::shared_ptr<Transport> transport) {
        const auto connection = std::make_shared<SpdyConnection>(
            std::move(transport),
            [self = shared_from_this()](const StreamPtr& stream) { return self->add(stream); });
        connection_ = connection;
        connection->start([self = shared_from_this()] { self->over(); });
    }

    /// Channels 2n and 2n+1 are data and errors of port n, and each begins with its number.
    void start_channels(std::shared_ptr<Transport> transport, ChannelConnection::Coding coding,
                        const std::vector<int32_t>& ports) {
        const auto connection = std::make_shared<ChannelConnection>(
            std::move(transport), coding, ChannelConnection::CloseSignal::kNo, 2 * ports.size());
        connection_ = connection;
        connection->start([self = shared_from_this()] { self->over(); });
        left_ = ports.size();
        if (ports.empty()) {
            connection->close([self = shared_from_this()] { self->over(); });
        }
        for (size_t i = 0; i < ports.size(); i++) {
            const auto port = static_cast<uint16_t>(ports[i]);
            const std::string number = {static_cast<char>(port & 0xff),
                                        static_cast<char>(port >> 8)};
            for (size_t channel : {2 * i, 2 * i + 1}) {
                connection->channel(channel)->write(number, [](bool) {});
            }
            connection->channel(2 * i + 1)->discard();
            std::make_shared<Forward>(io_, pod_id_, port, connection->channel(2 * i),
                                      connection->channel(2 * i + 1),
                                      [self = shared_from_this()] {
                                          if (--self->left_ == 0) {
                                              self->connection_->close([self] { self->over(); });
                                          }
                                      })
                ->start(network_namespace_);
        }
    }

  private:
    struct Pair {
        explicit Pair(boost::asio::io_context& io) : timer(io) {}
        StreamPtr data;
        StreamPtr error;
        boost::asio::steady_timer timer;
    };

    /// The connection and we hold each other until here.
    void over() {
        connection_.reset();
        finished_();
    }

    bool add(const StreamPtr& stream) {
        const std::string type = stream->header("streamtype");
        const uint16_t port = parse_port(stream->header("port"));
        if (port == 0 || (type != "error" && type != "data")) {
            spdlog::info("pod {}: port-forward: a stream of type \"{}\" for port \"{}\" is refused",
                         pod_id_, type, stream->header("port"));
            return false;
        }
        std::string request = stream->header("requestid");
        if (request.empty()) {
            // Clients that do not name requests make the error stream just before that for data.
            request = std::to_string(stream->number() - (type == "data" ? 2 : 0));
        }
        auto& pair = pairs_[request];
        if (pair == nullptr) {
            pair = std::make_shared<Pair>(io_);
            pair->timer.expires_after(kPairTime);
            pair->timer.async_wait(
                [self = shared_from_this(), request](const ErrorCode& cancelled) {
                    if (!cancelled) {
                        self->pair_late(request);
                    }
                });
        }
        StreamPtr& place = type == "data" ? pair->data : pair->error;
        if (place != nullptr) {
            if (pair->error != nullptr) {
                pair->error->write("error processing stream for request " + request + ": " + type +
                                       " stream already assigned",
                                   [](bool) {});
            }
            return false;
        }
        place = stream;
        if (type == "error") {
            stream->discard();  // clients send nothing on it
        }
        if (pair->data != nullptr && pair->error != nullptr) {
            pair->timer.cancel();
            const auto forward =
                std::make_shared<Forward>(io_, pod_id_, port, pair->data, pair->error, [] {});
            pairs_.erase(request);
            // Not from within the frame that made the stream: its reply goes first.
            boost::asio::post(io_, [self = shared_from_this(), forward] {
                forward->start(self->network_namespace_);
            });
        }
        return true;
    }

    void pair_late(const std::string& request) {
        const auto it = pairs_.find(request);
        if (it == pairs_.end()) {
            return;
        }
        const auto pair = it->second;
        pairs_.erase(it);
        spdlog::info("pod {}: port-forward: request {}: timed out waiting for streams", pod_id_,
                     request);
        if (pair->error != nullptr) {
            pair->error->write("(request=" + request + ") timed out waiting for streams",
                               [](bool) {});
            pair->error->finish();
        }
        if (pair->data != nullptr) {
            pair->data->reset();
        }
    }

    boost::asio::io_context& io_;
    const std::string pod_id_;
    const std::string network_namespace_;
    const std::function<void()> finished_;
    std::shared_ptr<Connection> connection_;
    std::map<std::string, std::shared_ptr<Pair>> pairs_;  ///< that still lack a stream
    size_t left_ = 0;  ///< channels: forwards that have not ended
};

}  // namespace

void run_port_forward(Client client, std::string pod_id, std::string network_namespace,
                      std::vector<int32_t> ports, std::function<void()> finished) {
    const auto session = std::make_shared<PortForwardSession>(
        client.io, std::move(pod_id), std::move(network_namespace), std::move(finished));
    if (client.decision.kind == Decision::Kind::kWebSocket) {
        const bool base64 = client.decision.protocol.find("base64") != std::string::npos;
        session->start_channels(
            client.transport,
            base64 ? ChannelConnection::Coding::kBase64 : ChannelConnection::Coding::kBinary,
            ports);
        return;
    }
    session->start_spdy(client.transport);
}

}  // namespace moat::cri::streaming
