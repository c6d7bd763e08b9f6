#include "kernel/net/unix/endpoint.h"

#include <algorithm>

#include "kernel/base/check.h"
#include "kernel/net/unix/names.h"

namespace moat::kernel {

namespace {

constexpr PollMask kReadable = EPOLLIN | EPOLLRDNORM;
constexpr PollMask kWritable = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;
constexpr PollMask kEverything = kReadable | kWritable | EPOLLERR | EPOLLHUP | EPOLLRDHUP;

}  // namespace

UnixEndpoint::~UnixEndpoint() = default;

void UnixEndpoint::on_event(PollMask) { queue_.notify(kWritable); }

/// From now on queue() is told when `other` takes something.
void UnixEndpoint::wait_for_space(UnixEndpoint& other) {
    RefPtr<UnixEndpoint> before;
    {
        MutexLock lock(mu_);
        if (waited_for_ == &other || closed_) {
            return;
        }
        before = std::exchange(waited_for_, RefPtr<UnixEndpoint>(&other));
    }
    other.space_queue_.add(this, EPOLLOUT);
    if (before) {
        before->space_queue_.remove(this);
    }
}

// ---------------------------------------------------------------- connections

void UnixEndpoint::pair(UnixEndpoint& a, UnixEndpoint& b, const PeerCredentials& who) {
    MutexLockPair lock(a.mu_, b.mu_);
    for (UnixEndpoint* end : {&a, &b}) {
        end->state_ = State::kConnected;
        end->peer_credentials_ = who;
    }
    a.peer_ = RefPtr<UnixEndpoint>(&b);
    b.peer_ = RefPtr<UnixEndpoint>(&a);
}

Status UnixEndpoint::listen(int backlog, const PeerCredentials& who) {
    if (is_datagram()) {
        return Errno(EOPNOTSUPP);
    }
    MutexLock lock(mu_);
    if (name_ == nullptr || state_ == State::kConnected) {
        return Errno(EINVAL);
    }
    const auto limit = static_cast<size_t>(
        std::min(static_cast<uint32_t>(backlog), static_cast<uint32_t>(kMaxBacklog)));
    const bool more = limit > backlog_limit_;
    state_ = State::kListening;
    backlog_limit_ = limit;
    own_credentials_ = who;
    lock.unlock();
    if (more) {
        space_queue_.notify(EPOLLOUT);
    }
    return {};
}

Status UnixEndpoint::connect_to(UnixEndpoint& listener, const PeerCredentials& who) {
    if (&listener == this) {
        MutexLock lock(mu_);
        return Errno(state_ == State::kListening ? EINVAL : ECONNREFUSED);
    }
    if (listener.type_ != type_) {
        return Errno(EPROTOTYPE);
    }
    const auto server = make_ref<UnixEndpoint>(type_);
    bool full = false;
    {
        MutexLockPair lock(mu_, listener.mu_);
        if (state_ == State::kConnected) {
            return Errno(EISCONN);
        }
        if (state_ == State::kListening) {
            return Errno(EINVAL);
        }
        if (listener.state_ != State::kListening || listener.closed_ ||
            (listener.shut_ & kShutReceive) != 0) {
            return Errno(ECONNREFUSED);
        }
        full = listener.backlog_.size() > listener.backlog_limit_;
        if (!full) {
            // Not known to anybody yet: its lock is not needed.
            server->state_ = State::kConnected;
            server->embryo_ = true;
            server->peer_ = RefPtr<UnixEndpoint>(this);
            server->peer_name_ = name_;
            server->peer_credentials_ = who;
            server->name_ = listener.name_;
            server->pass_credentials_ = listener.pass_credentials_.load();
            state_ = State::kConnected;
            peer_ = server;
            peer_name_ = listener.name_;
            peer_credentials_ = listener.own_credentials_;
            listener.backlog_.push_back(server);
        }
    }
    if (full) {
        wait_for_space(listener);
        // It may have been emptied just before.
        MutexLock lock(listener.mu_);
        if (listener.backlog_.size() <= listener.backlog_limit_ || listener.closed_) {
            lock.unlock();
            queue_.notify(kWritable);
        }
        return Errno(EAGAIN);
    }
    listener.queue_.notify(kReadable);
    queue_.notify(kWritable);
    return {};
}

Status UnixEndpoint::set_destination(RefPtr<UnixEndpoint> target) {
    if (target && target->type_ != type_) {
        return Errno(EPROTOTYPE);
    }
    Name name;
    if (target && target != this) {
        MutexLock lock(target->mu_);
        if (target->closed_) {
            return Errno(ECONNREFUSED);
        }
        if (target->peer_ && target->peer_ != this) {
            return Errno(EPERM);
        }
        name = target->name_;
    }
    RefPtr<UnixEndpoint> before;
    MutexLock lock(mu_);
    state_ = target ? State::kConnected : State::kUnconnected;
    peer_name_ = target == this ? name_ : name;
    before = std::exchange(peer_, std::move(target));
    lock.unlock();
    queue_.notify(kWritable);
    return {};
}

Result<RefPtr<UnixEndpoint>> UnixEndpoint::accept() {
    MutexLock lock(mu_);
    if (state_ != State::kListening) {
        return Errno(is_datagram() ? EOPNOTSUPP : EINVAL);
    }
    if (backlog_.empty()) {
        if ((shut_ & kShutReceive) != 0) {
            return Errno(EINVAL);
        }
        return Errno(EAGAIN);
    }
    RefPtr<UnixEndpoint> server = std::move(backlog_.front());
    backlog_.pop_front();
    lock.unlock();
    {
        MutexLock server_lock(server->mu_);
        server->embryo_ = false;
    }
    space_queue_.notify(EPOLLOUT);
    return server;
}

// ---------------------------------------------------------------- sending

Result<RefPtr<UnixEndpoint>> UnixEndpoint::connected_peer() {
    MutexLock lock(mu_);
    if (error_ != 0) {
        return Errno(std::exchange(error_, 0));
    }
    if ((shut_ & kShutSend) != 0) {
        return Errno(EPIPE);
    }
    if (state_ != State::kConnected) {
        return Errno(ENOTCONN);
    }
    if (!peer_) {
        return Errno(EPIPE);
    }
    return peer_;
}

/// A datagram receiver's limit, whoever sends; stream-like ends are limited by their one sender.
bool UnixEndpoint::is_full_locked() const {
    return messages_.size() >= kMaxQueue || queued_ >= 4 * kDefaultBuffer;
}

void UnixEndpoint::push_locked(Message message) {
    queued_ += message.data.size() + kMessageCost;
    messages_.push_back(std::move(message));
}

Result<size_t> UnixEndpoint::send(RefPtr<UnixEndpoint> target, SendRequest& request,
                                  const PeerCredentials& sender) {
    return type_ == SOCK_STREAM ? send_stream(request, sender)
                                : send_message(std::move(target), request, sender);
}

Result<size_t> UnixEndpoint::send_stream(SendRequest& request, const PeerCredentials& sender) {
    const RefPtr<UnixEndpoint> peer = TRY(connected_peer());
    if (request.data.empty()) {
        return 0;  // descriptors need a byte to travel with (unix(7))
    }
    size_t room = 0;
    Name from;
    {
        MutexLock lock(mu_);
        from = name_;
    }
    {
        MutexLock lock(peer->mu_);
        if (peer->closed_ || (peer->shut_ & kShutReceive) != 0) {
            return Errno(EPIPE);
        }
        const size_t limit = send_buffer();
        room = peer->queued_ < limit ? limit - peer->queued_ : 0;
    }
    if (room == 0) {
        return Errno(EAGAIN);
    }
    Message message;
    if (request.control != nullptr && !request.control->files.empty()) {
        message.files = TRY(InFlightFiles::send(request.control->files));
    }
    // Copied with no lock held. Senders at the same time may exceed the limit by a buffer each.
    message.data.resize(std::min(room, request.data.remaining()));
    message.data.resize(TRY(request.data.take(message.data.data(), message.data.size())));
    const size_t size = message.data.size();
    if (request.control != nullptr) {
        request.control->files.clear();  // they go with the first bytes, once
    }
    message.from = std::move(from);
    message.sender = sender;
    MutexLock lock(peer->mu_);
    if (peer->closed_) {
        lock.unlock();
        return Errno(EPIPE);
    }
    Message* const last = peer->messages_.empty() ? nullptr : &peer->messages_.back();
    if (last != nullptr && last->files.empty() && message.files.empty() && last->sender == sender &&
        last->data.size() + size <= 16384) {
        last->data.insert(last->data.end(), message.data.begin(), message.data.end());
        peer->queued_ += size;
    } else {
        peer->push_locked(std::move(message));
    }
    lock.unlock();
    peer->queue_.notify(kReadable);
    return size;
}

Result<size_t> UnixEndpoint::send_message(RefPtr<UnixEndpoint> target, SendRequest& request,
                                          const PeerCredentials& sender) {
    const bool addressed = static_cast<bool>(target);
    if (!addressed) {
        target = TRY(connected_peer());
    } else {
        MutexLock lock(mu_);
        if ((shut_ & kShutSend) != 0) {
            return Errno(EPIPE);
        }
    }
    if (target->type_ != type_) {
        return Errno(EPROTOTYPE);
    }
    const size_t limit = send_buffer();
    if (request.data.remaining() > limit - std::min(limit, size_t{32})) {
        return Errno(EMSGSIZE);
    }
    bool full = false;
    bool refused = false;
    {
        MutexLock lock(target->mu_);
        refused = target->closed_;
        if (!refused && (target->shut_ & kShutReceive) != 0) {
            return Errno(EPIPE);
        }
        if (is_datagram()) {
            if (!refused && target->peer_ && target->peer_ != this) {
                return Errno(EPERM);
            }
            full = target->is_full_locked();
        } else {
            full = target->queued_ >= limit;
        }
    }
    if (refused) {
        if (!is_datagram()) {
            return Errno(EPIPE);
        }
        if (!addressed) {
            (void)set_destination(nullptr);
        }
        return Errno(ECONNREFUSED);
    }
    if (full) {
        if (is_datagram()) {
            wait_for_space(*target);
            MutexLock lock(target->mu_);
            const bool room = !target->is_full_locked() || target->closed_;
            lock.unlock();
            if (room) {
                queue_.notify(kWritable);
            }
        }
        return Errno(EAGAIN);
    }
    Message message;
    if (request.control != nullptr && !request.control->files.empty()) {
        message.files = TRY(InFlightFiles::send(request.control->files));
    }
    message.data.resize(request.data.remaining());
    if (!message.data.empty() &&
        TRY(request.data.take(message.data.data(), message.data.size())) != message.data.size()) {
        return Errno(EFAULT);
    }
    const size_t size = message.data.size();
    {
        MutexLock lock(mu_);
        message.from = name_;
    }
    message.sender = sender;
    MutexLock lock(target->mu_);
    if (target->closed_) {
        lock.unlock();
        return Errno(is_datagram() ? ECONNREFUSED : EPIPE);
    }
    target->push_locked(std::move(message));
    lock.unlock();
    target->queue_.notify(kReadable);
    return size;
}

// ---------------------------------------------------------------- receiving

/// Says what a receiver gets when there is nothing: ok for end of file.
Status UnixEndpoint::check_receivable_locked() {
    if (error_ != 0) {
        return Errno(std::exchange(error_, 0));
    }
    if ((shut_ & kShutReceive) != 0) {
        return {};
    }
    return Errno(EAGAIN);
}

void UnixEndpoint::give_credentials_locked(ReceiveRequest& request, const Message& message) {
    if (passes_credentials()) {
        request.control.credentials = message.sender;
    }
    if (message.from != nullptr) {
        request.from = SocketAddress::of_unix(*message.from);
    }
}

Result<size_t> UnixEndpoint::receive(ReceiveRequest& request) {
    if ((request.flags & MSG_OOB) != 0) {
        return Errno(EOPNOTSUPP);
    }
    Message discarded;  // goes without the lock
    RefPtr<UnixEndpoint> peer;
    MutexLock lock(mu_);
    if (type_ == SOCK_STREAM && state_ != State::kConnected) {
        return Errno(EINVAL);
    }
    if (type_ == SOCK_SEQPACKET && state_ != State::kConnected) {
        return Errno(ENOTCONN);
    }
    peer = peer_;
    const size_t sender_buffer = peer && !is_datagram() ? peer->send_buffer() : 0;
    const bool had_room = has_room_locked(sender_buffer);
    const size_t before = queued_;
    const Result<size_t> n = type_ == SOCK_STREAM ? receive_stream_locked(request)
                                                  : receive_message_locked(request, discarded);
    const bool has_room = !had_room && has_room_locked(sender_buffer);
    const bool took = queued_ != before;
    lock.unlock();
    if (is_datagram()) {
        if (took) {
            space_queue_.notify(EPOLLOUT);
        }
    } else if (has_room && peer) {
        peer->queue_.notify(kWritable);
    }
    return n;
}

Result<size_t> UnixEndpoint::receive_stream_locked(ReceiveRequest& request) {
    if (messages_.empty()) {
        TRY(check_receivable_locked());
        return 0;
    }
    const bool peek = (request.flags & MSG_PEEK) != 0;
    size_t done = 0;
    size_t index = 0;  // of the message to be peeked at
    const PeerCredentials first_sender = messages_.front().sender;
    while (index < messages_.size() && !request.data.empty()) {
        Message& message = messages_[index];
        // What tells of the sender or brings descriptors is never glued to what came before.
        if (done > 0 && ((passes_credentials() && !(message.sender == first_sender)) ||
                         !message.files.empty())) {
            break;
        }
        const size_t wanted = std::min(message.left(), request.data.remaining());
        const Result<size_t> n = request.data.put(message.data.data() + message.taken, wanted);
        if (!n.ok()) {
            if (done == 0) {
                return n.error();
            }
            break;
        }
        if (done == 0) {
            give_credentials_locked(request, message);
        }
        done += *n;
        const bool had_files = !message.files.empty();
        if (had_files) {
            request.control.files = peek ? message.files.copy() : message.files.receive();
        }
        if (peek) {
            index++;
        } else {
            message.taken += *n;
            queued_ -= *n;
            if (message.left() == 0) {
                queued_ -= kMessageCost;
                messages_.pop_front();
            }
        }
        if (had_files || *n < wanted) {
            break;
        }
    }
    return done;
}

Result<size_t> UnixEndpoint::receive_message_locked(ReceiveRequest& request, Message& discarded) {
    if (messages_.empty()) {
        TRY(check_receivable_locked());
        return 0;
    }
    Message& message = messages_.front();
    const size_t size = message.data.size();
    const size_t fits = std::min(size, request.data.remaining());
    if (fits > 0 && TRY(request.data.put(message.data.data(), fits)) != fits) {
        return Errno(EFAULT);
    }
    if (fits < size) {
        request.message_flags |= MSG_TRUNC;
    }
    give_credentials_locked(request, message);
    if ((request.flags & MSG_PEEK) != 0) {
        request.control.files = message.files.copy();
    } else {
        request.control.files = message.files.receive();
        queued_ -= size + kMessageCost;
        discarded = std::move(message);
        messages_.pop_front();
    }
    return (request.flags & MSG_TRUNC) != 0 ? size : fits;
}

// ---------------------------------------------------------------- ends

Status UnixEndpoint::shutdown(uint8_t how) {
    RefPtr<UnixEndpoint> peer;
    MutexLock lock(mu_);
    shut_ |= how;
    if (!is_datagram()) {
        peer = peer_;
    }
    lock.unlock();
    if (peer) {
        const auto mirrored = static_cast<uint8_t>(((how & kShutReceive) != 0 ? kShutSend : 0) |
                                                   ((how & kShutSend) != 0 ? kShutReceive : 0));
        MutexLock peer_lock(peer->mu_);
        peer->shut_ |= mirrored;
        peer_lock.unlock();
        peer->queue_.notify(kEverything);
    }
    queue_.notify(kEverything);
    return {};
}

void UnixEndpoint::peer_closed(bool reset) {
    RefPtr<UnixEndpoint> gone;
    MutexLock lock(mu_);
    gone = std::move(peer_);
    shut_ = kShutBoth;
    if (reset) {
        error_ = ECONNRESET;
    }
    lock.unlock();
    queue_.notify(kEverything);
}

void UnixEndpoint::close() {
    std::deque<Message> messages;
    std::deque<RefPtr<UnixEndpoint>> backlog;
    RefPtr<UnixEndpoint> peer;
    RefPtr<UnixEndpoint> waited_for;
    Name name;
    Path path;
    bool reset = false;
    {
        MutexLock lock(mu_);
        closed_ = true;
        shut_ = kShutBoth;
        reset = embryo_ || !messages_.empty();
        messages.swap(messages_);
        queued_ = 0;
        backlog.swap(backlog_);
        peer = std::move(peer_);
        waited_for = std::move(waited_for_);
        path = std::move(path_);
        path_ = Path();
        if (owns_name_) {
            name = name_;
        }
    }
    if (name != nullptr) {
        forget_unix_name(*this, *name, path);
    }
    if (waited_for) {
        waited_for->space_queue_.remove(this);
    }
    if (peer && !is_datagram()) {
        peer->peer_closed(reset);
    }
    for (const RefPtr<UnixEndpoint>& waiting : backlog) {
        waiting->close();
    }
    space_queue_.notify(EPOLLOUT);
    queue_.notify(kEverything);
}

PollMask UnixEndpoint::poll() {
    PollMask ready = 0;
    RefPtr<UnixEndpoint> peer;
    bool listening = false;
    {
        MutexLock lock(mu_);
        if (error_ != 0) {
            ready |= EPOLLERR;
        }
        if (shut_ == kShutBoth) {
            ready |= EPOLLHUP;
        }
        if ((shut_ & kShutReceive) != 0) {
            ready |= EPOLLRDHUP | kReadable;
        }
        if (!messages_.empty() || !backlog_.empty()) {
            ready |= kReadable;
        }
        if (!is_datagram() && state_ == State::kUnconnected) {
            ready |= EPOLLHUP;
        }
        listening = state_ == State::kListening;
        peer = peer_;
    }
    if (listening) {
        return ready;
    }
    bool writable = true;
    if (peer) {
        MutexLock lock(peer->mu_);
        writable = is_datagram() ? !peer->is_full_locked() : peer->has_room_locked(send_buffer());
    }
    if (!writable && is_datagram()) {
        // Whoever waits must be told when the receiver takes a message.
        wait_for_space(*peer);
        MutexLock lock(peer->mu_);
        writable = !peer->is_full_locked() || peer->closed_;
    }
    return writable ? ready | kWritable : ready;
}

// ---------------------------------------------------------------- names and numbers

Status UnixEndpoint::set_name(std::string name, Path path) {
    MutexLock lock(mu_);
    if (name_ != nullptr) {
        return Errno(EINVAL);
    }
    name_ = std::make_shared<const std::string>(std::move(name));
    path_ = std::move(path);
    owns_name_ = true;
    return {};
}

std::string UnixEndpoint::name() const {
    MutexLock lock(mu_);
    return name_ != nullptr ? *name_ : std::string();
}

bool UnixEndpoint::is_bound() const {
    MutexLock lock(mu_);
    return name_ != nullptr;
}

Result<std::string> UnixEndpoint::peer_name() const {
    RefPtr<UnixEndpoint> peer;
    Name known;
    {
        MutexLock lock(mu_);
        if (state_ != State::kConnected) {
            return Errno(ENOTCONN);
        }
        peer = peer_;
        known = peer_name_;
    }
    if (peer) {
        return peer->name();  // it may have been bound after connecting
    }
    return known != nullptr ? *known : std::string();
}

bool UnixEndpoint::is_listening() const {
    MutexLock lock(mu_);
    return state_ == State::kListening;
}

PeerCredentials UnixEndpoint::peer_credentials() const {
    MutexLock lock(mu_);
    return state_ == State::kListening ? own_credentials_ : peer_credentials_;
}

size_t UnixEndpoint::readable_bytes() const {
    MutexLock lock(mu_);
    if (type_ != SOCK_STREAM) {
        return messages_.empty() ? 0 : messages_.front().data.size();
    }
    return queued_ - messages_.size() * kMessageCost;
}

size_t UnixEndpoint::unread_by_peer() const {
    RefPtr<UnixEndpoint> peer;
    {
        MutexLock lock(mu_);
        peer = peer_;
    }
    if (!peer || is_datagram()) {
        return 0;
    }
    MutexLock lock(peer->mu_);
    return peer->queued_;
}

int UnixEndpoint::take_error() {
    MutexLock lock(mu_);
    return std::exchange(error_, 0);
}

}  // namespace moat::kernel
