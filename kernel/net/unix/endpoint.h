#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/path.h"
#include "kernel/net/socket.h"
#include "kernel/net/unix/in_flight.h"
#include "kernel/task/wait_queue.h"

namespace moat::kernel {

/// One end of unix(7) communication: what two sockets, a listener's backlog and the tables of names
/// share. Its description (UnixSocket) closes it, which cuts all ties to others; a connection
/// waiting to be accepted has none yet, its listener closes it.
///
/// Locking: an end's lock guards what it has received and its state. No two are held at once but in
/// connect_to() and pair(), in address order. Guest memory is copied under the lock of the
/// receiving end when reading a stream, so that concurrent readers get whole pieces in order.
class UnixEndpoint final : public Waiter {
  public:
    static constexpr size_t kDefaultBuffer = 212992;  ///< net.core.wmem_default
    static constexpr size_t kSmallestBuffer = 4608;
    static constexpr size_t kLargestBuffer = 2 * 212992;
    static constexpr size_t kMessageCost = 256;  ///< counted for each message beside its bytes
    static constexpr size_t kMaxQueue = 512;     ///< net.unix.max_dgram_qlen
    static constexpr int kMaxBacklog = 4096;     ///< net.core.somaxconn
    enum Shut : uint8_t { kShutReceive = 1, kShutSend = 2, kShutBoth = 3 };

    explicit UnixEndpoint(int type) : type_(type) {}
    ~UnixEndpoint() override;

    int type() const { return type_; }
    bool is_datagram() const { return type_ == SOCK_DGRAM; }

    /// socketpair(2).
    static void pair(UnixEndpoint& a, UnixEndpoint& b, const PeerCredentials& who);
    /// EINVAL: not bound, or connected.
    Status listen(int backlog, const PeerCredentials& who);
    /// Streams and sequenced packets. ECONNREFUSED, EISCONN, EINVAL; EAGAIN: the backlog is full,
    /// and queue() will tell when it may no longer be.
    Status connect_to(UnixEndpoint& listener, const PeerCredentials& who);
    /// Datagrams: the default destination; null dissolves. EPERM: `target` talks to another.
    Status set_destination(RefPtr<UnixEndpoint> target);
    /// EINVAL: does not listen; EAGAIN.
    Result<RefPtr<UnixEndpoint>> accept();

    /// `target`: of a datagram, null for the connected one. EPIPE, ENOTCONN, ECONNREFUSED,
    /// EMSGSIZE, EPERM, ETOOMANYREFS; EAGAIN: no room, queue() tells.
    Result<size_t> send(RefPtr<UnixEndpoint> target, SendRequest& request,
                        const PeerCredentials& sender);
    Result<size_t> receive(ReceiveRequest& request);
    Status shutdown(uint8_t how);
    void close();

    PollMask poll();
    WaitQueue& queue() { return queue_; }
    /// Someone this end waits for has room now.
    void on_event(PollMask mask) override;

    // Names. An abstract one starts with a NUL; empty: none.
    /// EINVAL: it has one.
    Status set_name(std::string name, Path path);
    std::string name() const;
    /// ENOTCONN.
    Result<std::string> peer_name() const;
    bool is_bound() const;

    bool is_listening() const;
    PeerCredentials peer_credentials() const;
    /// FIONREAD: all of a stream's bytes, those of the first message otherwise.
    size_t readable_bytes() const;
    /// SIOCOUTQ.
    size_t unread_by_peer() const;
    int take_error();
    size_t send_buffer() const { return send_buffer_.load(std::memory_order_relaxed); }
    void set_send_buffer(size_t size) { send_buffer_.store(size, std::memory_order_relaxed); }
    bool passes_credentials() const { return pass_credentials_.load(std::memory_order_relaxed); }
    void set_pass_credentials(bool on) { pass_credentials_.store(on, std::memory_order_relaxed); }

  private:
    using Name = std::shared_ptr<const std::string>;
    enum class State : uint8_t { kUnconnected, kListening, kConnected };

    struct Message {
        std::vector<char> data;
        size_t taken = 0;  // bytes of a stream's message that were read
        Name from;
        PeerCredentials sender;
        InFlightFiles files;
        size_t left() const { return data.size() - taken; }
    };

    Result<size_t> send_stream(SendRequest& request, const PeerCredentials& sender);
    Result<size_t> send_message(RefPtr<UnixEndpoint> target, SendRequest& request,
                                const PeerCredentials& sender);
    Result<RefPtr<UnixEndpoint>> connected_peer();
    Result<size_t> receive_stream_locked(ReceiveRequest& request) REQUIRES(mu_);
    Result<size_t> receive_message_locked(ReceiveRequest& request, Message& discarded)
        REQUIRES(mu_);
    Status check_receivable_locked() REQUIRES(mu_);
    void push_locked(Message message) REQUIRES(mu_);
    void give_credentials_locked(ReceiveRequest& request, const Message& message) REQUIRES(mu_);
    bool is_full_locked() const REQUIRES(mu_);
    /// Whether a sender with `buffer` bytes of send buffer counts as writable (Linux:
    /// unix_writable).
    bool has_room_locked(size_t buffer) const REQUIRES(mu_) { return queued_ * 4 <= buffer; }
    void wait_for_space(UnixEndpoint& other);
    void peer_closed(bool reset);

    const int type_;
    mutable Mutex<LockRank::kSocket> mu_;
    State state_ GUARDED_BY(mu_) = State::kUnconnected;
    bool closed_ GUARDED_BY(mu_) = false;
    bool embryo_ GUARDED_BY(mu_) = false;  // not accepted yet
    uint8_t shut_ GUARDED_BY(mu_) = 0;
    int error_ GUARDED_BY(mu_) = 0;  // SO_ERROR
    RefPtr<UnixEndpoint> peer_ GUARDED_BY(mu_);
    RefPtr<UnixEndpoint> waited_for_ GUARDED_BY(mu_);  // on whose space_queue_ this end is
    std::deque<Message> messages_ GUARDED_BY(mu_);
    size_t queued_ GUARDED_BY(mu_) = 0;  // bytes in messages_ and kMessageCost for each
    std::deque<RefPtr<UnixEndpoint>> backlog_ GUARDED_BY(mu_);
    size_t backlog_limit_ GUARDED_BY(mu_) = 0;
    Name name_ GUARDED_BY(mu_);
    bool owns_name_ GUARDED_BY(mu_) = false;  // false: an accepted end, which has its listener's
    Path path_ GUARDED_BY(mu_);               // keeps the inode that leads here
    Name peer_name_ GUARDED_BY(mu_);
    PeerCredentials own_credentials_ GUARDED_BY(mu_);   // of a listener
    PeerCredentials peer_credentials_ GUARDED_BY(mu_);  // SO_PEERCRED
    std::atomic<size_t> send_buffer_{kDefaultBuffer};   // relaxed: a limit, read by others
    std::atomic<bool> pass_credentials_{false};         // relaxed
    WaitQueue queue_;
    WaitQueue space_queue_;  // ends that wait until this one has taken a message or a connection
};

}  // namespace moat::kernel
