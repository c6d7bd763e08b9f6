#pragma once

// What the sessions (exec, attach, port-forward) see of a client: byte streams that share one
// connection, whichever protocol carries them. All of one connection runs on one thread; nothing
// here is locked. Handlers may be called before the call that takes them returns.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace moat::cri::streaming {

/// A stream that nobody reads holds at most this much before the connection is no longer read, and
/// all streams of a connection together kMaxUnread: neither SPDY's peers nor WebSocket have a flow
/// control of their own, so a slow reader holds up its whole connection, as in the reference.
inline constexpr size_t kMaxUnreadOfStream = 1 << 20;
inline constexpr size_t kMaxUnread = 16 << 20;
/// Beyond this much that the client does not take, nothing more of what it sends is read.
inline constexpr size_t kMaxUnsent = 1 << 20;
/// What a producer writes at a time.
inline constexpr size_t kChunk = 32 << 10;

/// The bytes below the streams: TCP or TLS, bare or in WebSocket messages.
class Transport {
  public:
    struct Piece {
        std::string_view bytes;      ///< valid during the call
        bool begins_message = true;  ///< WebSocket: the first piece of a message
        bool ends_message = true;
        bool end = false;  ///< the client has gone, or sent what its protocol forbids
    };
    using ReadHandler = std::function<void(const Piece&)>;
    using WriteHandler = std::function<void(bool sent)>;

    virtual ~Transport() = default;
    /// One at a time.
    virtual void read(ReadHandler handler) = 0;
    /// One at a time; WebSocket: as one message.
    virtual void write(std::string bytes, WriteHandler handler) = 0;
    /// Ends the connection in order, once: what was written arrives. `closed` is called when the
    /// client has ended it too, or has had its time. No write may be under way.
    virtual void close(std::function<void()> closed) = 0;
};

class Connection;

/// One byte stream in both directions; each direction ends by itself. Owned by its connection's
/// table until both have ended, and by whoever uses it.
class Stream {
  public:
    using Headers = std::multimap<std::string, std::string>;
    /// Empty: the client's side has ended, by its end, by a reset or with the connection.
    using ReadHandler = std::function<void(std::string bytes)>;
    using WriteHandler = std::function<void(bool sent)>;

    Stream(Connection& connection, uint32_t number, Headers headers)
        : connection_(&connection), number_(number), headers_(std::move(headers)) {}
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    uint32_t number() const { return number_; }
    /// The first value of a header, whose name is in lower case; "" without.
    std::string header(const std::string& name) const;

    /// Next bytes. One at a time.
    void read(ReadHandler handler);
    /// From now on whatever arrives is dropped.
    void discard();
    /// Done when the connection has taken the bytes: a producer that waits for it is as slow as the
    /// client. False: the client does not want them any more.
    void write(std::string bytes, WriteHandler handler);
    /// Ends our direction.
    void finish();
    /// Ends both, with an error.
    void reset();
    bool open() const { return connection_ != nullptr && !local_ended_; }
    bool remote_ended() const { return remote_ended_; }

    // For the connection.
    void arrived(std::string_view bytes);
    void remote_end();
    /// The connection is gone, or the stream was reset.
    void detach();
    /// The connection dies with its streams still open; tells nobody.
    void orphan() { connection_ = nullptr; }
    size_t unread() const { return unread_; }

  private:
    void deliver();

    Connection* connection_;  ///< null: nothing can be sent any more
    const uint32_t number_;
    const Headers headers_;
    std::deque<std::string> queue_;
    size_t unread_ = 0;
    ReadHandler reader_;
    bool discards_ = false;
    bool remote_ended_ = false;
    bool local_ended_ = false;
};

using StreamPtr = std::shared_ptr<Stream>;

/// What the protocols have in common: one reader of the transport, one queue of what is to be
/// written, and the bounds of both.
class Connection : public std::enable_shared_from_this<Connection> {
  public:
    explicit Connection(std::shared_ptr<Transport> transport) : transport_(std::move(transport)) {}
    virtual ~Connection() = default;

    /// Begins to read. `closed` is called once, when no more will arrive. Called again: from now on
    /// somebody else is told.
    void start(std::function<void()> closed);
    /// Sends what is queued, says good-bye and ends the connection; then `done`.
    void close(std::function<void()> done);
    bool closed() const { return closed_; }
    /// When the last bytes went or came.
    std::chrono::steady_clock::time_point last_activity() const { return last_activity_; }

  protected:
    friend class Stream;
    virtual void write_data(Stream& stream, std::string bytes, Transport::WriteHandler handler) = 0;
    virtual void finish_stream(Stream& stream) = 0;
    virtual void reset_stream(Stream& stream) = 0;
    /// False: a violation of the protocol; the connection ends.
    virtual bool received(const Transport::Piece& piece) = 0;
    /// Queues what has to be said before the connection ends.
    virtual void say_goodbye() = 0;
    /// Tells every stream that nothing more will come and nothing can be sent.
    virtual void detach_streams() = 0;
    /// Some stream has kMaxUnreadOfStream that nobody has read.
    virtual bool stream_full() const = 0;

    void send(std::string bytes, Transport::WriteHandler handler = nullptr);
    /// `change` bytes more, or fewer, wait in a stream.
    void unread_changed(ptrdiff_t change);
    void hang_up();

  private:
    struct Outgoing {
        std::string bytes;
        Transport::WriteHandler handler;
    };
    void read_more();
    void write_next();
    void finish_closing();

    const std::shared_ptr<Transport> transport_;
    std::function<void()> on_closed_;
    std::function<void()> on_done_;
    std::deque<Outgoing> outgoing_;
    std::chrono::steady_clock::time_point last_activity_ = std::chrono::steady_clock::now();
    size_t unsent_ = 0;
    size_t unread_ = 0;
    bool reading_ = false;
    bool writing_ = false;
    bool closing_ = false;  ///< close() was called: the queue is written out, nothing is added
    bool closed_ = false;   ///< no more will arrive
    bool broken_ = false;   ///< nothing more can be sent
};

}  // namespace moat::cri::streaming
