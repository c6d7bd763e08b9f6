#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "cri/streaming/negotiate.h"
#include "cri/streaming/stream.h"
#include "cri/streaming/tokens.h"

namespace moat::cri::streaming {

/// A client whose token was good and whose protocol is spoken.
struct Client {
    boost::asio::io_context& io;  ///< runs on the client's own thread
    Request request;
    Decision decision;
    std::shared_ptr<Transport> transport;
};

/// Accepts clients, speaks HTTP with them up to the upgrade, and hands them on. Each connection has
/// a thread with an io_context of its own: what a session waits for (a sentry's answer) holds up
/// nobody else, and what belongs to it needs no lock.
class HttpServer {
  public:
    /// Connections beyond are closed at once.
    static constexpr size_t kMaxConnections = 1000;

    struct Options {
        std::string address;
        uint16_t port = 0;        ///< 0: any that is free
        std::string certificate;  ///< PEM, the chain; with it and the key TLS is spoken
        std::string key;
    };
    /// Takes over a client, on its thread; calls `finished` when all is over.
    using Serve = std::function<void(Client client, std::function<void()> finished)>;

    HttpServer(Tokens& tokens, Serve serve);
    ~HttpServer();

    /// Listens, and begins to accept. EINVAL: the options; else what bind(2) says.
    Status start(const Options& options);
    /// Ends every session where it stands and joins all threads.
    void stop();
    /// "http://127.0.0.1:41234"
    const std::string& base_url() const { return base_url_; }

  private:
    struct Session {
        std::thread thread;
        std::mutex mu;
        boost::asio::io_context* io = nullptr;  ///< guarded by mu; null before and after its run
        bool stop = false;                      ///< guarded by mu
        std::atomic<bool> ended{false};
    };
    void accept();
    void run_session(Session& session, boost::asio::ip::tcp::socket::native_handle_type fd,
                     bool v6);
    void reap(bool all);

    Tokens& tokens_;
    const Serve serve_;
    std::string base_url_;
    std::optional<boost::asio::ssl::context> tls_;
    boost::asio::io_context io_{1};
    boost::asio::ip::tcp::acceptor acceptor_{io_};
    boost::asio::ip::tcp::socket next_{io_};
    boost::asio::steady_timer retry_{io_};
    std::thread thread_;
    std::list<Session> sessions_;  ///< of the accepting thread
};

}  // namespace moat::cri::streaming
