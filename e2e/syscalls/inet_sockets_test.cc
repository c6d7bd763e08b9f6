// TCP and UDP over the loopback device, IPv4 and IPv6.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

constexpr int kLong = kPatienceSeconds * 1000;

FileDescriptor make_socket(int family, int type) {
    FileDescriptor fd(::socket(family, type | SOCK_CLOEXEC, 0));
    if (!fd.valid()) {
        fatal("socket: " + errno_name(errno));
    }
    return fd;
}

sockaddr_in loopback(uint16_t port = 0) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

const sockaddr* generic(const sockaddr_in& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

sockaddr_in name_of(int fd) {
    sockaddr_in address{};
    socklen_t length = sizeof address;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
        fatal("getsockname: " + errno_name(errno));
    }
    return address;
}

/// A socket bound to a free loopback port; listening when it is a stream.
FileDescriptor bound(int type, int backlog = 8) {
    FileDescriptor fd = make_socket(AF_INET, type);
    const sockaddr_in any = loopback();
    if (::bind(fd.get(), generic(any), sizeof any) != 0 ||
        ((type & 0xf) == SOCK_STREAM && ::listen(fd.get(), backlog) != 0)) {
        fatal("bind: " + errno_name(errno));
    }
    return fd;
}

/// A connected pair of TCP sockets.
struct TcpPair {
    TcpPair() {
        const FileDescriptor server = bound(SOCK_STREAM);
        const sockaddr_in address = name_of(server.get());
        a = make_socket(AF_INET, SOCK_STREAM);
        if (::connect(a.get(), generic(address), sizeof address) != 0) {
            fatal("connect: " + errno_name(errno));
        }
        b.reset(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!b.valid()) {
            fatal("accept: " + errno_name(errno));
        }
    }
    FileDescriptor a, b;
};

short wait_for(int fd, short events) {
    pollfd entry{fd, events, 0};
    return ::poll(&entry, 1, kLong) == 1 ? entry.revents : 0;
}

TEST_CASE("tcp: a conversation in both directions, ended by both sides") {
    TcpPair pair;
    REQUIRE(write_all(pair.a.get(), "question"));
    CHECK(read_exactly(pair.b.get(), 8) == "question");
    REQUIRE(write_all(pair.b.get(), "answer"));
    CHECK(read_exactly(pair.a.get(), 6) == "answer");
    pair.a.reset();
    char c;
    CHECK_THAT(::read(pair.b.get(), &c, 1), succeeds_with(0));
}

TEST_CASE("tcp: two megabytes arrive whole") {
    TcpPair pair;
    std::string big(2 << 20, '\0');
    for (size_t i = 0; i < big.size(); ++i) {
        big[i] = static_cast<char>(i * 31 >> 3);
    }
    Thread writer([&] {
        write_all(pair.a.get(), big);
        pair.a.reset();
    });
    CHECK(read_all(pair.b.get()) == big);
}

TEST_CASE("tcp: names of both sides agree") {
    TcpPair pair;
    sockaddr_in peer{};
    socklen_t length = sizeof peer;
    REQUIRE_THAT(::getpeername(pair.a.get(), reinterpret_cast<sockaddr*>(&peer), &length),
                 succeeds());
    CHECK(length == sizeof peer);
    CHECK(peer.sin_port == name_of(pair.b.get()).sin_port);
    CHECK(peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    CHECK_THAT(::getpeername(bound(SOCK_STREAM).get(), reinterpret_cast<sockaddr*>(&peer), &length),
               fails_with(ENOTCONN));
}

TEST_CASE("tcp: nobody listens: ECONNREFUSED, blocking and by poll") {
    sockaddr_in address;
    {
        const FileDescriptor reserved = make_socket(AF_INET, SOCK_STREAM);
        address = loopback();
        REQUIRE_THAT(::bind(reserved.get(), generic(address), sizeof address), succeeds());
        address = name_of(reserved.get());
        // Bound, but not listening.
        const FileDescriptor fd = make_socket(AF_INET, SOCK_STREAM);
        CHECK_THAT(::connect(fd.get(), generic(address), sizeof address), fails_with(ECONNREFUSED));
        const FileDescriptor later = make_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
        CHECK_THAT(::connect(later.get(), generic(address), sizeof address),
                   fails_with_any({EINPROGRESS, ECONNREFUSED}));
        CHECK((wait_for(later.get(), POLLOUT) & (POLLERR | POLLHUP)) != 0);
    }
}

TEST_CASE("tcp: a non-blocking connect is finished when poll says writable and SO_ERROR is zero") {
    const FileDescriptor server = bound(SOCK_STREAM);
    const sockaddr_in address = name_of(server.get());
    const FileDescriptor fd = make_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
    const int started = ::connect(fd.get(), generic(address), sizeof address);
    CHECK((started == 0 || errno == EINPROGRESS));
    CHECK((wait_for(fd.get(), POLLOUT) & POLLOUT) != 0);
    int error = -1;
    socklen_t length = sizeof error;
    REQUIRE_THAT(::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length), succeeds());
    CHECK(error == 0);
    // The first call after the connection came about may still return its result.
    (void)::connect(fd.get(), generic(address), sizeof address);
    CHECK_THAT(::connect(fd.get(), generic(address), sizeof address), fails_with(EISCONN));
}

TEST_CASE("tcp: accept blocks, poll and non-blocking accept tell") {
    const FileDescriptor server = bound(SOCK_STREAM | SOCK_NONBLOCK);
    CHECK_THAT(::accept(server.get(), nullptr, nullptr), fails_with(EAGAIN));
    const sockaddr_in address = name_of(server.get());
    const FileDescriptor client = make_socket(AF_INET, SOCK_STREAM);
    REQUIRE_THAT(::connect(client.get(), generic(address), sizeof address), succeeds());
    CHECK((wait_for(server.get(), POLLIN) & POLLIN) != 0);
    const FileDescriptor accepted(
        ::accept4(server.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    CHECK(accepted.valid());
    CHECK((::fcntl(accepted.get(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK_THAT(::fcntl(accepted.get(), F_GETFD), succeeds_with(FD_CLOEXEC));
}

TEST_CASE("tcp: a sleeping accept is woken by a connection from another process") {
    const FileDescriptor server = bound(SOCK_STREAM);
    const sockaddr_in address = name_of(server.get());
    Child client([&] {
        wait_until_blocked(::getppid());
        const FileDescriptor fd = make_socket(AF_INET, SOCK_STREAM);
        CHILD_THAT(::connect(fd.get(), generic(address), sizeof address), succeeds());
        CHILD_CHECK(read_all(fd.get()) == "welcome");
    });
    {
        const FileDescriptor accepted(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
        REQUIRE(accepted.valid());
        REQUIRE(write_all(accepted.get(), "welcome"));
    }
    CHECK(client.wait() == exited(0));
}

TEST_CASE("tcp: shutdown of writing is the peer's end of file, reading goes on") {
    TcpPair pair;
    REQUIRE_THAT(::shutdown(pair.a.get(), SHUT_WR), succeeds());
    char c;
    CHECK_THAT(::read(pair.b.get(), &c, 1), succeeds_with(0));
    CHECK_THAT(::send(pair.a.get(), "x", 1, MSG_NOSIGNAL), fails_with(EPIPE));
    REQUIRE(write_all(pair.b.get(), "still"));
    CHECK(read_exactly(pair.a.get(), 5) == "still");
    CHECK((wait_for(pair.b.get(), POLLRDHUP | POLLIN) & POLLRDHUP) != 0);
}

TEST_CASE("tcp: a close with SO_LINGER zero resets the peer") {
    TcpPair pair;
    const linger hard{1, 0};
    REQUIRE_THAT(::setsockopt(pair.a.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard), succeeds());
    pair.a.reset();
    char c;
    CHECK_THAT(::read(pair.b.get(), &c, 1), fails_with(ECONNRESET));
}

TEST_CASE("tcp: writing into a reset connection raises SIGPIPE or fails with EPIPE") {
    TcpPair pair;
    const linger hard{1, 0};
    REQUIRE_THAT(::setsockopt(pair.a.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard), succeeds());
    pair.a.reset();
    CHECK((wait_for(pair.b.get(), POLLIN) & (POLLHUP | POLLERR)) != 0);
    char c;
    (void)::read(pair.b.get(), &c, 1);
    CHECK_THAT(::send(pair.b.get(), "x", 1, MSG_NOSIGNAL), fails_with(EPIPE));
}

TEST_CASE("tcp: MSG_PEEK, MSG_DONTWAIT, FIONREAD") {
    TcpPair pair;
    char buffer[8];
    CHECK_THAT(::recv(pair.b.get(), buffer, 8, MSG_DONTWAIT), fails_with(EAGAIN));
    REQUIRE(write_all(pair.a.get(), "abc"));
    REQUIRE((wait_for(pair.b.get(), POLLIN) & POLLIN) != 0);
    CHECK_THAT(::recv(pair.b.get(), buffer, 8, MSG_PEEK), succeeds_with(3));
    int n = 0;
    REQUIRE_THAT(::ioctl(pair.b.get(), FIONREAD, &n), succeeds());
    CHECK(n == 3);
    CHECK_THAT(::recv(pair.b.get(), buffer, 8, 0), succeeds_with(3));
}

TEST_CASE("tcp: SO_RCVTIMEO ends a read with EAGAIN") {
    TcpPair pair;
    const timeval brief{0, 10'000};
    REQUIRE_THAT(::setsockopt(pair.a.get(), SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief),
                 succeeds());
    char c;
    CHECK_THAT(::read(pair.a.get(), &c, 1), fails_with(EAGAIN));
}

TEST_CASE("tcp: out-of-band data raises POLLPRI and is read apart") {
    TcpPair pair;
    REQUIRE_THAT(::send(pair.a.get(), "!", 1, MSG_OOB), succeeds_with(1));
    CHECK((wait_for(pair.b.get(), POLLPRI) & POLLPRI) != 0);
    char c = 0;
    CHECK_THAT(::recv(pair.b.get(), &c, 1, MSG_OOB), succeeds_with(1));
    CHECK(c == '!');
}

TEST_CASE("bind: a port in use is EADDRINUSE, a foreign address EADDRNOTAVAIL") {
    const FileDescriptor server = bound(SOCK_STREAM);
    sockaddr_in address = name_of(server.get());
    const FileDescriptor other = make_socket(AF_INET, SOCK_STREAM);
    CHECK_THAT(::bind(other.get(), generic(address), sizeof address), fails_with(EADDRINUSE));
    int on = 1;
    REQUIRE_THAT(::setsockopt(other.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), succeeds());
    CHECK_THAT(::bind(other.get(), generic(address), sizeof address), fails_with(EADDRINUSE));
    address = loopback();
    address.sin_addr.s_addr = htonl(0xc0000201);  // 192.0.2.1, set aside for documentation
    CHECK_THAT(::bind(other.get(), generic(address), sizeof address), fails_with(EADDRNOTAVAIL));
}

TEST_CASE("bind: SO_REUSEADDR takes a port whose old connections linger, SO_REUSEPORT shares") {
    sockaddr_in address;
    {
        const FileDescriptor server = make_socket(AF_INET, SOCK_STREAM);
        int on = 1;
        REQUIRE_THAT(::setsockopt(server.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on),
                     succeeds());
        address = loopback();
        REQUIRE_THAT(::bind(server.get(), generic(address), sizeof address), succeeds());
        REQUIRE_THAT(::listen(server.get(), 1), succeeds());
        address = name_of(server.get());
        const FileDescriptor client = make_socket(AF_INET, SOCK_STREAM);
        REQUIRE_THAT(::connect(client.get(), generic(address), sizeof address), succeeds());
        FileDescriptor accepted(::accept(server.get(), nullptr, nullptr));
        accepted.reset();  // the server's side closes first and stays in TIME_WAIT
        char c;
        CHECK_THAT(::read(client.get(), &c, 1), succeeds_with(0));
    }
    const FileDescriptor again = make_socket(AF_INET, SOCK_STREAM);
    int on = 1;
    REQUIRE_THAT(::setsockopt(again.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), succeeds());
    CHECK_THAT(::bind(again.get(), generic(address), sizeof address), succeeds());
    const FileDescriptor a = make_socket(AF_INET, SOCK_DGRAM), b = make_socket(AF_INET, SOCK_DGRAM);
    REQUIRE_THAT(::setsockopt(a.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), succeeds());
    REQUIRE_THAT(::setsockopt(b.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), succeeds());
    address = loopback();
    REQUIRE_THAT(::bind(a.get(), generic(address), sizeof address), succeeds());
    address = name_of(a.get());
    CHECK_THAT(::bind(b.get(), generic(address), sizeof address), succeeds());
}

TEST_CASE("bind: wrong lengths and families fail") {
    const FileDescriptor fd = make_socket(AF_INET, SOCK_STREAM);
    sockaddr_in address = loopback();
    CHECK_THAT(::bind(fd.get(), generic(address), 4), fails_with(EINVAL));
    CHECK_THAT(::bind(fd.get(), static_cast<const sockaddr*>(bad_pointer()), sizeof address),
               fails_with(EFAULT));
    address.sin_family = AF_UNIX;
    CHECK_THAT(::bind(fd.get(), generic(address), sizeof address), fails_with(EAFNOSUPPORT));
    CHECK_THAT(::bind(fd.get(), generic(address), 1 << 20), fails_with(EINVAL));
}

TEST_CASE("udp: datagrams with their borders and the sender's address") {
    const FileDescriptor a = bound(SOCK_DGRAM), b = bound(SOCK_DGRAM);
    const sockaddr_in to = name_of(b.get());
    CHECK_THAT(::sendto(a.get(), "one", 3, 0, generic(to), sizeof to), succeeds_with(3));
    CHECK_THAT(::sendto(a.get(), "", 0, 0, generic(to), sizeof to), succeeds_with(0));
    CHECK_THAT(::sendto(a.get(), "three", 5, 0, generic(to), sizeof to), succeeds_with(5));
    char buffer[16];
    Fenced<sockaddr_in> from;
    socklen_t length = sizeof(sockaddr_in);
    CHECK_THAT(::recvfrom(b.get(), buffer, sizeof buffer, 0,
                          reinterpret_cast<sockaddr*>(from.get()), &length),
               succeeds_with(3));
    CHECK(from->sin_port == name_of(a.get()).sin_port);
    CHECK(from.intact());
    CHECK_THAT(::recv(b.get(), buffer, sizeof buffer, 0), succeeds_with(0));
    CHECK_THAT(::recv(b.get(), buffer, 2, MSG_TRUNC), succeeds_with(5));
}

TEST_CASE("udp: a connected socket hears only its peer, and of refused ports") {
    const FileDescriptor a = bound(SOCK_DGRAM), stranger = bound(SOCK_DGRAM);
    FileDescriptor b = bound(SOCK_DGRAM);
    const sockaddr_in to_a = name_of(a.get()), to_b = name_of(b.get());
    REQUIRE_THAT(::connect(a.get(), generic(to_b), sizeof to_b), succeeds());
    CHECK_THAT(::sendto(stranger.get(), "x", 1, 0, generic(to_a), sizeof to_a), succeeds_with(1));
    CHECK_THAT(::sendto(b.get(), "y", 1, 0, generic(to_a), sizeof to_a), succeeds_with(1));
    char c;
    CHECK_THAT(::recv(a.get(), &c, 1, 0), succeeds_with(1));
    CHECK(c == 'y');
    b.reset();
    CHECK_THAT(::send(a.get(), "z", 1, 0), succeeds_with(1));
    CHECK_THAT(::recv(a.get(), &c, 1, 0), fails_with(ECONNREFUSED));
}

TEST_CASE("udp: too large is EMSGSIZE, no address EDESTADDRREQ") {
    const FileDescriptor a = bound(SOCK_DGRAM);
    const sockaddr_in to = name_of(a.get());
    const std::string big(70'000, 'x');
    CHECK_THAT(::sendto(a.get(), big.data(), big.size(), 0, generic(to), sizeof to),
               fails_with(EMSGSIZE));
    CHECK_THAT(::send(a.get(), "x", 1, 0), fails_with(EDESTADDRREQ));
}

TEST_CASE("ipv6: a TCP conversation over ::1") {
    const FileDescriptor server(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SKIP_UNLESS(server.valid(), "no IPv6");
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    const int done = ::bind(server.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    SKIP_UNLESS(done == 0 || errno != EADDRNOTAVAIL, "no ::1 on the loopback device");
    REQUIRE(done == 0);
    REQUIRE_THAT(::listen(server.get(), 1), succeeds());
    socklen_t length = sizeof address;
    REQUIRE_THAT(::getsockname(server.get(), reinterpret_cast<sockaddr*>(&address), &length),
                 succeeds());
    const FileDescriptor client = make_socket(AF_INET6, SOCK_STREAM);
    REQUIRE_THAT(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address),
                 succeeds());
    const FileDescriptor accepted(::accept(server.get(), nullptr, nullptr));
    REQUIRE(write_all(client.get(), "six"));
    CHECK(read_exactly(accepted.get(), 3) == "six");
}

TEST_CASE("options: what was set is read back") {
    const FileDescriptor fd = make_socket(AF_INET, SOCK_STREAM);
    const struct {
        int level, name;
    } flags[] = {
        {SOL_SOCKET, SO_REUSEADDR}, {SOL_SOCKET, SO_KEEPALIVE}, {IPPROTO_TCP, TCP_NODELAY}};
    for (const auto& flag : flags) {
        CAPTURE(flag.name);
        int on = 1, value = 0;
        socklen_t length = sizeof value;
        CHECK_THAT(::setsockopt(fd.get(), flag.level, flag.name, &on, sizeof on), succeeds());
        CHECK_THAT(::getsockopt(fd.get(), flag.level, flag.name, &value, &length), succeeds());
        CHECK(value != 0);
        CHECK(length == sizeof value);
    }
    int size = 65536, value = 0;
    socklen_t length = sizeof value;
    CHECK_THAT(::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof size), succeeds());
    CHECK_THAT(::getsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &value, &length), succeeds());
    CHECK(value >= size);
    CHECK_THAT(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &size, 2), fails_with(EINVAL));
    CHECK_THAT(::setsockopt(fd.get(), IPPROTO_TCP, 9999, &size, sizeof size),
               fails_with(ENOPROTOOPT));
    CHECK_THAT(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, bad<int>(), 4), fails_with(EFAULT));
}

TEST_CASE("close while another thread blocks in accept") {
    // Linux lets the sleeper sleep: a shutdown is what wakes it.
    FileDescriptor server = bound(SOCK_STREAM);
    int result = 0, error = 0;
    const int fd = server.get();
    Thread acceptor([&] {
        result = ::accept(fd, nullptr, nullptr);
        error = errno;
    });
    wait_until_blocked(::getpid(), acceptor.tid());
    REQUIRE_THAT(::shutdown(fd, SHUT_RDWR), succeeds());
    acceptor.join();
    CHECK(result == -1);
    CHECK(error == EINVAL);
}

}  // namespace
