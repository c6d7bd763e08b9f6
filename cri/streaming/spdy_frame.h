#pragma once

// The frames of SPDY/3.1 as far as its remaining speakers use them: kubelet, crictl and client-go
// (moby/spdystream). Source: the SPDY protocol drafts 3 and 3.1. Bytes in, calls out: no I/O here.

#include <zlib.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "cri/base/error.h"

namespace moat::cri::streaming {

/// Bounds of what a peer may send. Its frames are tiny; these are far above and still cheap.
inline constexpr size_t kMaxControlFrame = 64 << 10;
inline constexpr size_t kMaxHeaderBlock = 64 << 10;  ///< inflated
inline constexpr size_t kMaxHeaders = 256;

enum class RstStatus : uint32_t {
    kProtocolError = 1,
    kInvalidStream = 2,
    kRefusedStream = 3,
    kCancel = 5,
};

using SpdyHeaders = std::multimap<std::string, std::string>;

/// What a FrameReader finds. Stream ids are 31 bits; nothing else about them has been checked.
class FrameSink {
  public:
    virtual ~FrameSink() = default;
    virtual void on_syn_stream(uint32_t id, SpdyHeaders headers, bool fin, bool unidirectional) = 0;
    virtual void on_syn_reply(uint32_t id, SpdyHeaders headers, bool fin) = 0;
    virtual void on_headers(uint32_t id, SpdyHeaders headers, bool fin) = 0;
    virtual void on_rst_stream(uint32_t id, uint32_t status) = 0;
    virtual void on_ping(uint32_t id) = 0;
    virtual void on_goaway(uint32_t last_good_id) = 0;
    /// A data frame comes in as many pieces as it arrives in; `fin` with the last.
    virtual void on_data(uint32_t id, std::string_view bytes, bool fin) = 0;
};

/// Takes a peer's bytes apart. Holds at most kMaxControlFrame bytes; data is passed on as it comes.
class FrameReader {
  public:
    FrameReader();
    ~FrameReader();
    FrameReader(const FrameReader&) = delete;
    FrameReader& operator=(const FrameReader&) = delete;

    /// EBADMSG: the peer does not speak SPDY, or beyond our bounds; nothing may be fed any more
    /// (the state of the headers' compression is lost with the frame).
    Status feed(std::string_view bytes, FrameSink& sink);

  private:
    Status control_frame(FrameSink& sink);
    Result<SpdyHeaders> headers(std::string_view block);
    Result<std::string> inflate_block(std::string_view block);

    std::string frame_;      ///< head, and payload so far, of the control frame that has begun
    size_t frame_size_ = 0;  ///< of its head and payload; 0: the head is not complete
    uint32_t data_id_ = 0;   ///< of the data frame that has begun
    size_t data_left_ = 0;
    bool in_data_ = false;
    bool data_fin_ = false;
    z_stream inflate_{};
};

/// Puts frames together. One for each direction of a connection, since headers are compressed with
/// what went before.
class FrameWriter {
  public:
    FrameWriter();
    ~FrameWriter();
    FrameWriter(const FrameWriter&) = delete;
    FrameWriter& operator=(const FrameWriter&) = delete;

    std::string syn_stream(uint32_t id, const SpdyHeaders& headers, bool fin = false);
    std::string syn_reply(uint32_t id, const SpdyHeaders& headers, bool fin = false);
    static std::string rst_stream(uint32_t id, RstStatus status);
    static std::string ping(uint32_t id);
    static std::string goaway(uint32_t last_good_id, uint32_t status);
    /// At most 2^24-1 bytes.
    static std::string data(uint32_t id, std::string_view bytes, bool fin);

  private:
    std::string deflate_block(const SpdyHeaders& headers);
    z_stream deflate_{};
};

}  // namespace moat::cri::streaming
