#pragma once

#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>

#include "cri/streaming/http_server.h"
#include "cri/streaming/remote_status.h"
#include "cri/streaming/stream.h"

namespace moat::cri {
class ContainerManager;
}

namespace moat::cri::streaming {

/// The streams of an exec or attach; those that were not asked for are null.
struct RemoteStreams {
    std::shared_ptr<Connection> connection;
    int version = 0;  ///< of the protocol
    StreamPtr in, out, err;
    StreamPtr error;   ///< what RemoteStatus goes to
    StreamPtr resize;  ///< null without a terminal, or when the protocol has none
};

/// Gets the client's streams together, as its protocol has it, and then calls `ready`. A client
/// that does not make them within 30 s, or goes away, is `finished`.
void open_remote_streams(Client client, bool tty, bool in, bool out, bool err,
                         std::function<void(RemoteStreams)> ready, std::function<void()> finished);

/// Runs the process of an ExecRequest on the streams, or attaches them; `finished` when all is
/// over, with the client told how it ended.
void run_exec(boost::asio::io_context& io, ContainerManager& containers, ExecRequest request,
              RemoteStreams streams, std::function<void()> finished);
void run_attach(boost::asio::io_context& io, ContainerManager& containers, AttachRequest request,
                RemoteStreams streams, std::function<void()> finished);

/// What both have in common: the end, and sizes.
class RemoteSession {
  public:
    RemoteSession(boost::asio::io_context& io, RemoteStreams streams,
                  std::function<void()> finished)
        : io_(io), streams_(std::move(streams)), finished_(std::move(finished)) {}

  protected:
    ~RemoteSession() = default;
    /// Tells the client, once, and ends the connection.
    void end(const RemoteStatus& status);
    bool ended() const { return ended_; }
    /// Reads sizes as long as they come.
    void read_sizes(std::function<void(SizeParser::Size)> on_size, std::function<void()> on_end);

    boost::asio::io_context& io_;
    RemoteStreams streams_;

  private:
    std::function<void()> finished_;
    SizeParser sizes_;
    bool ended_ = false;
};

}  // namespace moat::cri::streaming
