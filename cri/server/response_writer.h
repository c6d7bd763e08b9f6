#pragma once

#include <google/protobuf/message.h>

namespace moat::cri {

/// The messages of one call's answer, on their way to the client. Each function waits until gRPC
/// has taken what it is given; false: the client has gone.
class MessageSink {
  public:
    virtual ~MessageSink() = default;
    virtual bool send_headers() = 0;
    virtual bool send(const google::protobuf::Message& message) = 0;
};

/// The same for one kind of message: what a streaming method answers with.
template <typename Response>
class ResponseWriter {
  public:
    explicit ResponseWriter(MessageSink& sink) : sink_(sink) {}
    /// Before the first message, for a client that waits for the beginning.
    bool send_headers() { return sink_.send_headers(); }
    bool write(const Response& response) { return sink_.send(response); }

  private:
    MessageSink& sink_;
};

}  // namespace moat::cri
