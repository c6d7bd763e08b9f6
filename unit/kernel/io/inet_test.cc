#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <condition_variable>
#include <mutex>

#include "kernel/net/host_poller.h"
#include "kernel/net/inet/inet_socket.h"
#include "kernel/net/inet/netlink_socket.h"
#include "kernel/net/inet/options.h"
#include "unit/kernel/io/waiting.h"

using namespace moat;
using namespace moat::kernel;
using namespace moat::kernel::test;

namespace {

void start_poller_once() {
    static const bool started = start_host_poller().ok();
    REQUIRE(started);
}

/// Lets a test's thread wait for what the poller thread tells.
class Bell final : public Waiter {
  public:
    void on_event(PollMask mask) override {
        std::lock_guard lock(mu_);
        seen_ |= mask;
        changed_.notify_all();
    }
    void wait_for(PollMask mask) {
        std::unique_lock lock(mu_);
        changed_.wait(lock, [&] { return (seen_ & mask) != 0; });
        seen_ = 0;
    }

  private:
    std::mutex mu_;
    std::condition_variable changed_;
    PollMask seen_ = 0;
};

SocketAddress loopback(uint16_t port) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    SocketAddress address;
    memcpy(address.bytes, &in, sizeof in);
    address.size = sizeof in;
    return address;
}

Result<size_t> send(Socket& socket, std::string_view bytes, const SocketAddress* to = nullptr) {
    IoBuffer buffer = IoBuffer::sentry(static_cast<const void*>(bytes.data()), bytes.size());
    SendRequest request{buffer, to, nullptr, 0};
    const auto n = socket.send(no_task(), request);
    if (n.ok()) {
        CHECK(buffer.transferred() == *n);
    } else {
        CHECK(buffer.transferred() == 0);  // a refused attempt has not moved the cursor
    }
    return n;
}

Result<std::string> receive(Socket& socket, size_t size) {
    std::string bytes(size, '\0');
    IoBuffer buffer = IoBuffer::sentry(bytes.data(), bytes.size());
    ReceiveRequest request{buffer};
    bytes.resize(TRY(socket.receive(no_task(), request)));
    return bytes;
}

RefPtr<Socket> make(int type) { return InetSocket::make(no_task(), AF_INET, type, 0, 0).value(); }

}  // namespace

TEST_CASE("inet stream: connect, accept, bytes, and the poller's word for each") {
    start_poller_once();
    const auto listener = make(SOCK_STREAM);
    REQUIRE(listener->bind(no_task(), loopback(0)).ok());
    REQUIRE(listener->listen(no_task(), 8).ok());
    CHECK(listener->accept(no_task(), 0).error() == EAGAIN);
    const SocketAddress where = listener->local_address(no_task()).value();
    auto knock = make_ref<Bell>();
    listener->wait_queue()->add(knock.get(), EPOLLIN);

    const auto client = make(SOCK_STREAM);
    const Status connecting = client->connect(no_task(), where);
    CHECK((connecting.ok() || connecting.error() == EINPROGRESS));
    knock->wait_for(EPOLLIN);
    const auto server = listener->accept(no_task(), 0).value();
    CHECK(client->finish_connect(no_task()).ok());
    CHECK(server->domain() == AF_INET);

    CHECK(receive(*server, 10).error() == EAGAIN);
    auto bell = make_ref<Bell>();
    server->wait_queue()->add(bell.get(), EPOLLIN | EPOLLRDHUP);
    REQUIRE(send(*client, "over the wire").value() == 13);
    bell->wait_for(EPOLLIN);
    CHECK(receive(*server, 99).value() == "over the wire");

    // Until it is full: the attempt that is refused leaves all of its bytes to the caller.
    const std::string chunk(1 << 20, 'x');
    size_t total = 0;
    for (;;) {
        const auto n = send(*client, chunk);
        if (!n.ok()) {
            CHECK(n.error() == EAGAIN);
            break;
        }
        total += *n;
    }
    auto room = make_ref<Bell>();
    client->wait_queue()->add(room.get(), EPOLLOUT);
    size_t drained = 0;
    while (drained < total) {
        const auto bytes = receive(*server, 1 << 20);
        if (bytes.ok()) {
            drained += bytes->size();
        } else {
            REQUIRE(bytes.error() == EAGAIN);
            bell->wait_for(EPOLLIN);
        }
    }
    room->wait_for(EPOLLOUT);
    REQUIRE(client->shutdown(no_task(), SHUT_WR).ok());
    bell->wait_for(EPOLLRDHUP);
    CHECK(receive(*server, 1).value().empty());
    listener->wait_queue()->remove(knock.get());
    server->wait_queue()->remove(bell.get());
    client->wait_queue()->remove(room.get());
}

TEST_CASE("inet: a refused connection says so once it is known") {
    start_poller_once();
    uint16_t port = 0;
    {
        const auto taken =
            make(SOCK_STREAM);  // bound, not listening, then gone: nobody answers there
        REQUIRE(taken->bind(no_task(), loopback(0)).ok());
        sockaddr_in in{};
        const SocketAddress address = taken->local_address(no_task()).value();
        memcpy(&in, address.bytes, sizeof in);
        port = ntohs(in.sin_port);
    }
    const auto client = make(SOCK_STREAM);
    auto bell = make_ref<Bell>();
    client->wait_queue()->add(bell.get(), EPOLLOUT);
    const Status status = client->connect(no_task(), loopback(port));
    REQUIRE(!status.ok());
    if (status.error() == EINPROGRESS) {
        Status finished = client->finish_connect(no_task());
        while (!finished.ok() && finished.error() == EINPROGRESS) {
            bell->wait_for(EPOLLOUT | EPOLLERR | EPOLLHUP);
            finished = client->finish_connect(no_task());
        }
        REQUIRE(!finished.ok());
        CHECK(finished.error() == ECONNREFUSED);
    } else {
        CHECK(status.error() == ECONNREFUSED);
    }
    client->wait_queue()->remove(bell.get());
}

TEST_CASE("inet: what guests may not have") {
    CHECK(InetSocket::make(no_task(), AF_INET, SOCK_RAW, 1, 0).error() == EPERM);
    CHECK(InetSocket::make(no_task(), AF_INET, SOCK_STREAM, IPPROTO_UDP, 0).error() ==
          EPROTONOSUPPORT);
    CHECK(InetSocket::make(no_task(), AF_INET, SOCK_SEQPACKET, 0, 0).error() == ESOCKTNOSUPPORT);
    const auto socket = make(SOCK_DGRAM);
    SocketAddress alien = SocketAddress::of_family(AF_UNIX);
    CHECK(socket->bind(no_task(), alien).error() == EAFNOSUPPORT);
    CHECK(send(*socket, "x", &alien).error() == EAFNOSUPPORT);
}

TEST_CASE("inet options: listed ones reach the host, others are refused") {
    const auto socket = make(SOCK_STREAM);
    const int one = 1;
    std::vector<uint8_t> value(sizeof one);
    memcpy(value.data(), &one, sizeof one);
    CHECK(socket->set_option(no_task(), IPPROTO_TCP, TCP_NODELAY, value).ok());
    CHECK(socket->get_option(no_task(), IPPROTO_TCP, TCP_NODELAY, 4).value() == value);
    CHECK(socket->set_option(no_task(), SOL_SOCKET, SO_ATTACH_FILTER, value).error() ==
          ENOPROTOOPT);
    CHECK(socket->set_option(no_task(), SOL_SOCKET, SO_ERROR, value).error() == ENOPROTOOPT);
    CHECK(socket->set_option(no_task(), SOL_SOCKET, SO_MARK, value).error() == EPERM);
    CHECK(socket->get_option(no_task(), 12345, 1, 4).error() == ENOPROTOOPT);
    CHECK(find_inet_option(SOL_SOCKET, SO_ATTACH_BPF) == nullptr);
}

TEST_CASE("netlink: only requests that read pass, whole and within their buffer") {
    struct {
        nlmsghdr header;
        rtgenmsg body;
        char padding[15];
    } request{};
    static_assert(sizeof request == 32);
    const auto* const bytes = reinterpret_cast<const uint8_t*>(&request);
    request.header.nlmsg_len = sizeof request;
    for (const int type : {RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE}) {
        request.header.nlmsg_type = static_cast<uint16_t>(type);
        CHECK(check_netlink_requests(bytes, sizeof request).ok());
    }
    for (const int type : {RTM_NEWLINK, RTM_DELADDR, RTM_NEWROUTE, RTM_SETLINK, RTM_NEWQDISC}) {
        request.header.nlmsg_type = static_cast<uint16_t>(type);
        CHECK(check_netlink_requests(bytes, sizeof request).error() == EPERM);
    }
    request.header.nlmsg_type = RTM_GETLINK;
    request.header.nlmsg_len = sizeof request + 1;
    CHECK(check_netlink_requests(bytes, sizeof request).error() == EINVAL);
    request.header.nlmsg_len = 4;
    CHECK(check_netlink_requests(bytes, sizeof request).error() == EINVAL);
    // A harmless request in front does not carry another through.
    uint8_t two[64];
    request.header.nlmsg_len = sizeof request;
    memcpy(two, &request, sizeof request);
    request.header.nlmsg_type = RTM_DELLINK;
    memcpy(two + 32, &request, sizeof request);
    CHECK(check_netlink_requests(two, sizeof two).error() == EPERM);
}
