#pragma once

#include <optional>
#include <vector>

#include "cri/streaming/stream.h"

namespace moat::cri::streaming {

/// WebSocket messages that begin with the number of their channel (Kubernetes' channel.k8s.io
/// protocols). Which channels there are is known from the start; what comes for others is dropped.
class ChannelConnection final : public Connection {
  public:
    enum class Coding {
        kBinary,  ///< the number as a byte, then the bytes
        kBase64,  ///< the number as a digit, then base64
    };
    /// v5: a message 255 N ends the client's side of channel N.
    enum class CloseSignal : bool { kNo, kYes };
    static constexpr uint8_t kCloseChannel = 255;

    ChannelConnection(std::shared_ptr<Transport> transport, Coding coding, CloseSignal close_signal,
                      size_t channels);
    ~ChannelConnection() override;

    const StreamPtr& channel(size_t number) const { return channels_[number]; }

  protected:
    void write_data(Stream& stream, std::string bytes, Transport::WriteHandler handler) override;
    /// Clients know no end of our side but that of the connection.
    void finish_stream(Stream&) override {}
    void reset_stream(Stream& stream) override;
    bool received(const Transport::Piece& piece) override;
    void say_goodbye() override {}
    void detach_streams() override;
    bool stream_full() const override;

  private:
    bool payload(std::string_view bytes, bool last);

    const Coding coding_;
    const CloseSignal close_signal_;
    std::vector<StreamPtr> channels_;
    std::optional<uint8_t> current_;  ///< of the message that has begun
    std::string held_;                ///< base64 that has begun; the argument of a close signal
};

}  // namespace moat::cri::streaming
