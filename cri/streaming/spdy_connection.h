#pragma once

#include <memory>

#include "cri/streaming/spdy_frame.h"
#include "cri/streaming/stream.h"

namespace moat::cri::streaming {

/// The server's side of a SPDY connection, as moby/spdystream has it: the client makes the streams,
/// nobody keeps windows, PING is answered, GOAWAY ends it once its streams have ended.
class SpdyConnection final : public Connection, private FrameSink {
  public:
    /// A browser behind `kubectl port-forward` opens dozens at once, each with an error stream.
    static constexpr size_t kMaxStreams = 1024;
    /// A new stream; false refuses it. Nothing may be written to it yet: clients drop what comes
    /// before the reply, which follows.
    using NewStream = std::function<bool(const StreamPtr&)>;

    SpdyConnection(std::shared_ptr<Transport> transport, NewStream on_stream)
        : Connection(std::move(transport)), on_stream_(std::move(on_stream)) {}
    ~SpdyConnection() override;

  protected:
    void write_data(Stream& stream, std::string bytes, Transport::WriteHandler handler) override;
    void finish_stream(Stream& stream) override;
    void reset_stream(Stream& stream) override;
    bool received(const Transport::Piece& piece) override;
    void say_goodbye() override;
    void detach_streams() override;
    bool stream_full() const override;

  private:
    void on_syn_stream(uint32_t id, SpdyHeaders headers, bool fin, bool unidirectional) override;
    void on_syn_reply(uint32_t, SpdyHeaders, bool) override {}
    void on_headers(uint32_t id, SpdyHeaders headers, bool fin) override;
    void on_rst_stream(uint32_t id, uint32_t status) override;
    void on_ping(uint32_t id) override;
    void on_goaway(uint32_t last_good_id) override;
    void on_data(uint32_t id, std::string_view bytes, bool fin) override;

    void remote_finished(uint32_t id);
    StreamPtr find(uint32_t id) const;
    void forget(uint32_t id);

    NewStream on_stream_;
    FrameReader reader_;
    FrameWriter writer_;
    std::map<uint32_t, StreamPtr> streams_;  ///< those with a direction that has not ended
    uint32_t last_id_ = 0;                   ///< the client's newest
    bool goaway_received_ = false;
};

}  // namespace moat::cri::streaming
