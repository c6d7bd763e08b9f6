#include "kernel/net/unix/endpoint.h"
#include "unit/kernel/io/waiting.h"

using namespace moat;
using namespace moat::kernel;
using namespace moat::kernel::test;

namespace {

const PeerCredentials kMe{1, 2, 3, nullptr};
const PeerCredentials kOther{4, 5, 6, nullptr};

/// Closes its end as a description would.
struct End {
    explicit End(int type) : end(make_ref<UnixEndpoint>(type)) {}
    explicit End(RefPtr<UnixEndpoint> e) : end(std::move(e)) {}
    ~End() { close(); }
    End(const End&) = delete;
    End& operator=(const End&) = delete;
    void close() {
        if (end) {
            const WakeScope scope;
            end->close();
            end.reset();
        }
    }
    UnixEndpoint* operator->() const { return end.get(); }
    UnixEndpoint& operator*() const { return *end; }

    Result<size_t> send(std::string_view bytes, Ancillary* control = nullptr,
                        RefPtr<UnixEndpoint> to = nullptr, const PeerCredentials& who = kMe) {
        IoBuffer buffer = IoBuffer::sentry(static_cast<const void*>(bytes.data()), bytes.size());
        SendRequest request{buffer, nullptr, control, 0};
        const WakeScope scope;
        return end->send(std::move(to), request, who);
    }
    struct Received {
        std::string bytes;
        size_t result;
        Ancillary control;
        int flags;
        SocketAddress from;
    };
    Result<Received> receive(size_t size, int flags = 0) {
        std::string bytes(size, '\0');
        IoBuffer buffer = IoBuffer::sentry(bytes.data(), bytes.size());
        ReceiveRequest request{buffer};
        request.flags = flags;
        const WakeScope scope;
        const size_t n = TRY(end->receive(request));
        bytes.resize(buffer.transferred());
        return Received{bytes, n, std::move(request.control), request.message_flags, request.from};
    }
    std::string text(size_t size, int flags = 0) {
        auto r = receive(size, flags);
        return r.ok() ? r->bytes : "errno " + std::to_string(r.error().value());
    }

    RefPtr<UnixEndpoint> end;
};

struct Pair {
    explicit Pair(int type) : a(type), b(type) { UnixEndpoint::pair(*a, *b, kMe); }
    End a;
    End b;
};

}  // namespace

TEST_CASE("unix stream: bytes run together, and an end's close is an end of file behind them") {
    Pair pair(SOCK_STREAM);
    REQUIRE(pair.a.send("one ").value() == 4);
    REQUIRE(pair.a.send("two").value() == 3);
    CHECK(pair.b->readable_bytes() == 7);
    CHECK(pair.b.text(3, MSG_PEEK) == "one");
    CHECK(pair.b.text(5) == "one t");
    CHECK(pair.b.receive(5)->bytes == "wo");
    CHECK(pair.b.receive(5).error() == EAGAIN);
    REQUIRE(pair.a.send("rest").ok());
    pair.a.close();
    CHECK(pair.b.text(9) == "rest");
    CHECK(pair.b.receive(9)->result == 0);
    CHECK(pair.b.send("x").error() == EPIPE);
    CHECK((pair.b->poll() & (EPOLLHUP | EPOLLRDHUP | EPOLLIN)) ==
          (EPOLLHUP | EPOLLRDHUP | EPOLLIN));
}

TEST_CASE("unix stream: closing with unread data is a reset for the other end") {
    Pair pair(SOCK_STREAM);
    REQUIRE(pair.a.send("unread").ok());
    pair.b.close();
    CHECK((pair.a->poll() & EPOLLERR) != 0);
    CHECK(pair.a.receive(1).error() == ECONNRESET);
    CHECK(pair.a.receive(1)->result == 0);
}

TEST_CASE("unix stream: a full buffer refuses, and tells when there is room") {
    Pair pair(SOCK_STREAM);
    pair.a->set_send_buffer(8192);
    const std::string chunk(4096, 'x');
    size_t total = 0;
    for (;;) {
        const auto n = pair.a.send(chunk);
        if (!n.ok()) {
            CHECK(n.error() == EAGAIN);
            break;
        }
        total += *n;
    }
    CHECK(total <= 8192);
    CHECK((pair.a->poll() & EPOLLOUT) == 0);
    auto waiter = make_ref<RecordingWaiter>();
    pair.a->queue().add(waiter.get(), EPOLLOUT);
    CHECK(pair.b.text(total).size() <= total);
    while (pair.b->readable_bytes() > 0) {
        REQUIRE(pair.b.receive(8192).ok());
    }
    CHECK(waiter->told == 1);
    CHECK((pair.a->poll() & EPOLLOUT) != 0);
    pair.a->queue().remove(waiter.get());
}

TEST_CASE("unix stream: shutdown closes one way, seen from both ends") {
    Pair pair(SOCK_STREAM);
    const WakeScope scope;
    REQUIRE(pair.a->shutdown(UnixEndpoint::kShutSend).ok());
    CHECK(pair.a.send("x").error() == EPIPE);
    CHECK(pair.b.receive(1)->result == 0);
    CHECK((pair.b->poll() & (EPOLLRDHUP | EPOLLHUP)) == EPOLLRDHUP);
    CHECK(pair.b.send("back").value() == 4);
    CHECK(pair.a.text(9) == "back");
}

TEST_CASE("unix seqpacket: messages keep their borders and lose what does not fit") {
    Pair pair(SOCK_SEQPACKET);
    REQUIRE(pair.a.send("first").ok());
    REQUIRE(pair.a.send("").ok());
    REQUIRE(pair.a.send("third").ok());
    auto cut = pair.b.receive(3, MSG_TRUNC);
    CHECK(cut->bytes == "fir");
    CHECK(cut->result == 5);
    CHECK((cut->flags & MSG_TRUNC) != 0);
    CHECK(pair.b.receive(9)->result == 0);
    CHECK(pair.b.text(9) == "third");
    CHECK(pair.b.receive(9).error() == EAGAIN);
}

TEST_CASE("unix dgram: a full receiver makes senders wait, and taking one message wakes them") {
    End receiver(SOCK_DGRAM);
    End sender(SOCK_DGRAM);
    REQUIRE(sender->set_destination(receiver.end).ok());
    size_t sent = 0;
    while (sender.send("m").ok()) {
        REQUIRE(++sent < 10000);
    }
    CHECK(sent == UnixEndpoint::kMaxQueue);
    CHECK(sender.send("m").error() == EAGAIN);
    auto waiter = make_ref<RecordingWaiter>();
    sender->queue().add(waiter.get(), EPOLLOUT);
    CHECK((sender->poll() & EPOLLOUT) == 0);
    REQUIRE(receiver.receive(1).ok());
    CHECK(waiter->told > 0);
    CHECK((sender->poll() & EPOLLOUT) != 0);
    sender->queue().remove(waiter.get());
}

TEST_CASE("unix dgram: a destination that has closed refuses, one that has another peer forbids") {
    End receiver(SOCK_DGRAM);
    End friendly(SOCK_DGRAM);
    End stranger(SOCK_DGRAM);
    REQUIRE(receiver->set_destination(friendly.end).ok());
    CHECK(stranger.send("x", nullptr, receiver.end).error() == EPERM);
    CHECK(friendly.send("x", nullptr, receiver.end).value() == 1);
    REQUIRE(receiver->set_destination(nullptr).ok());
    REQUIRE(stranger->set_destination(receiver.end).ok());
    receiver.close();
    CHECK(stranger.send("x").error() == ECONNREFUSED);
    CHECK(stranger.send("x").error() == ENOTCONN);
}

TEST_CASE("unix stream: listening, a full backlog, accepting, and who is who") {
    End listener(SOCK_STREAM);
    const WakeScope scope;
    CHECK(listener->listen(0, kMe).error() == EINVAL);  // not bound
    REQUIRE(listener->set_name(std::string("\0name", 5), Path()).ok());
    REQUIRE(listener->listen(0, kMe).ok());
    End first(SOCK_STREAM);
    End second(SOCK_STREAM);
    CHECK((first->poll() & EPOLLHUP) != 0);
    REQUIRE(first->connect_to(*listener, kOther).ok());
    CHECK(first->connect_to(*listener, kOther).error() == EISCONN);
    CHECK(second->connect_to(*listener, kOther).error() == EAGAIN);
    auto waiter = make_ref<RecordingWaiter>();
    second->queue().add(waiter.get(), EPOLLOUT);
    End server(listener->accept().value());
    WakeScope::flush();
    CHECK(waiter->told > 0);
    second->queue().remove(waiter.get());
    CHECK(second->connect_to(*listener, kOther).ok());
    CHECK(server->peer_credentials() == kOther);
    CHECK(first->peer_credentials() == kMe);
    CHECK(first->peer_name().value() == std::string("\0name", 5));
    CHECK(server->name() == std::string("\0name", 5));
    REQUIRE(first.send("hi").ok());
    CHECK(server.text(9) == "hi");
    listener.close();  // with `second` not yet accepted
    CHECK(second.receive(1).error() == ECONNRESET);
    CHECK(first.send("still").ok());
}

TEST_CASE("unix: descriptors travel with their bytes and are never glued to others'") {
    Pair pair(SOCK_STREAM);
    bool destroyed = false;
    Ancillary control;
    control.files.push_back(make_ref<FakeFile>(&destroyed));
    REQUIRE(pair.a.send("before").ok());
    REQUIRE(pair.a.send("with", &control).ok());
    CHECK(control.files.empty());
    REQUIRE(pair.a.send("after").ok());
    CHECK(pair.b.receive(99)->control.files.empty());
    {
        auto peeked = pair.b.receive(99, MSG_PEEK);
        CHECK(peeked->control.files.size() == 1);
    }
    CHECK(!destroyed);
    {
        auto got = pair.b.receive(99);
        CHECK(got->bytes == "with");
        CHECK(got->control.files.size() == 1);
    }
    CHECK(destroyed);
    CHECK(pair.b.text(99) == "after");
}

TEST_CASE("unix: descriptors that nobody receives are closed with the socket") {
    bool destroyed = false;
    {
        Pair pair(SOCK_DGRAM);
        Ancillary control;
        control.files.push_back(make_ref<FakeFile>(&destroyed));
        REQUIRE(pair.a.send("x", &control).ok());
        CHECK(!destroyed);
    }
    CHECK(destroyed);
}

TEST_CASE("unix: credentials come to those who asked, and part a stream's messages") {
    Pair pair(SOCK_STREAM);
    REQUIRE(pair.a.send("mine", nullptr, nullptr, kMe).ok());
    REQUIRE(pair.a.send("theirs", nullptr, nullptr, kOther).ok());
    CHECK(!pair.b.receive(1)->control.credentials.has_value());
    pair.b->set_pass_credentials(true);
    auto first = pair.b.receive(99);
    CHECK(first->bytes == "ine");
    CHECK(*first->control.credentials == kMe);
    auto second = pair.b.receive(99);
    CHECK(second->bytes == "theirs");
    CHECK(*second->control.credentials == kOther);
}

TEST_CASE("unix: a chain of sockets in sockets is let go of without recursion") {
    // Each link is a file that holds a pair whose queue holds the next link.
    class Link final : public File {
      public:
        explicit Link(size_t* alive) : File(2), alive_(alive) { ++*alive_; }
        ~Link() override { --*alive_; }
        Pair pair{SOCK_DGRAM};

      private:
        size_t* alive_;
    };
    size_t alive = 0;
    constexpr size_t kLinks = 10000;
    {
        const WakeScope scope;
        RefPtr<File> chain = make_ref<Link>(&alive);
        for (size_t i = 1; i < kLinks; i++) {
            auto next = make_ref<Link>(&alive);
            Ancillary control;
            control.files.push_back(std::move(chain));
            REQUIRE(next->pair.a.send("x", &control).ok());
            chain = next;
        }
        CHECK(alive == kLinks);
    }
    CHECK(alive == 0);
}
