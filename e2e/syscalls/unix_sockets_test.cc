// AF_UNIX: stream, datagram, sequenced packets, names, SCM_RIGHTS, SCM_CREDENTIALS.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "e2e/syscalls/lib/guest.h"

using namespace guest;

namespace {

/// An address: a path, or an abstract name when it begins with a zero byte.
struct Address {
    explicit Address(const std::string& name) {
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, name.data(), name.size());
        length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() +
                                        (name[0] == '\0' ? 0 : 1));
    }
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
    sockaddr_un address{};
    socklen_t length;
};

FileDescriptor make_socket(int type) {
    FileDescriptor fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    if (!fd.valid()) {
        fatal("socket: " + errno_name(errno));
    }
    return fd;
}

FileDescriptor listener(const Address& address, int type = SOCK_STREAM, int backlog = 8) {
    FileDescriptor fd = make_socket(type);
    if (::bind(fd.get(), address.get(), address.length) != 0 || ::listen(fd.get(), backlog) != 0) {
        fatal("bind and listen: " + errno_name(errno));
    }
    return fd;
}

std::string abstract_name(const char* text) {
    return std::string("\0", 1) + "moat-test-" + std::to_string(::getpid()) + "-" + text;
}

/// Sends one byte with descriptors.
ssize_t send_fds(int socket, const std::vector<int>& fds) {
    char byte = 'f';
    iovec part{&byte, 1};
    std::vector<char> control(CMSG_SPACE(sizeof(int) * fds.size()));
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
    return ::sendmsg(socket, &message, 0);
}

/// Receives one byte and the descriptors that came with it.
std::vector<int> receive_fds(int socket, int flags = 0, size_t room = 16,
                             int* message_flags = nullptr) {
    char byte;
    iovec part{&byte, 1};
    std::vector<char> control(CMSG_SPACE(sizeof(int) * room));
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = CMSG_LEN(sizeof(int) * room);
    std::vector<int> fds;
    if (::recvmsg(socket, &message, flags) != 1) {
        return fds;
    }
    if (message_flags != nullptr) {
        *message_flags = message.msg_flags;
    }
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
            const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            const auto* data = reinterpret_cast<const int*>(CMSG_DATA(header));
            fds.insert(fds.end(), data, data + count);
        }
    }
    return fds;
}

TEST_CASE("socketpair: bytes go both ways, a close is an end of file") {
    SocketPair pair(SOCK_STREAM);
    REQUIRE(write_all(pair.a.get(), "there"));
    REQUIRE(write_all(pair.b.get(), "back"));
    CHECK(read_exactly(pair.b.get(), 5) == "there");
    CHECK(read_exactly(pair.a.get(), 4) == "back");
    pair.a.reset();
    char c;
    CHECK_THAT(::read(pair.b.get(), &c, 1), succeeds_with(0));
    CHECK_THAT(::send(pair.b.get(), "x", 1, MSG_NOSIGNAL), fails_with(EPIPE));
}

TEST_CASE("datagrams and packets: a write to a closed peer fails with no signal") {
    for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
        CHECK(run_in_child([type] {
                  ::signal(SIGPIPE, SIG_DFL);
                  int ends[2];
                  CHILD_CHECK(::socketpair(AF_UNIX, type, 0, ends) == 0);
                  CHILD_CHECK(::shutdown(ends[0], SHUT_WR) == 0);
                  CHILD_THAT(::write(ends[0], "x", 1), fails_with(EPIPE));
                  ::_exit(5);
              }) == exited(5));
    }
}

TEST_CASE("accept: without a free descriptor the connection stays in the queue") {
    in_child([] {
        sockaddr_un name{AF_UNIX, {}};
        std::memcpy(name.sun_path, "\0moat-emfile", 12);
        const socklen_t size = sizeof(sa_family_t) + 12;
        const int server = ::socket(AF_UNIX, SOCK_STREAM, 0);
        CHILD_CHECK(::bind(server, reinterpret_cast<sockaddr*>(&name), size) == 0);
        CHILD_CHECK(::listen(server, 4) == 0);
        const int client = ::socket(AF_UNIX, SOCK_STREAM, 0);
        CHILD_CHECK(::connect(client, reinterpret_cast<sockaddr*>(&name), size) == 0);
        CHILD_CHECK(::write(client, "kept", 4) == 4);
        rlimit limit{};
        CHILD_CHECK(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
        const rlim_t all = limit.rlim_cur;
        limit.rlim_cur = static_cast<rlim_t>(client) + 1;
        CHILD_CHECK(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
        while (::dup(server) >= 0) {
        }
        CHILD_THAT(::accept(server, nullptr, nullptr), fails_with(EMFILE));
        limit.rlim_cur = all;
        CHILD_CHECK(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
        const int peer = ::accept(server, nullptr, nullptr);
        CHILD_CHECK(peer >= 0);
        char text[8] = {};
        CHILD_CHECK(::read(peer, text, sizeof text) == 4);
        CHILD_CHECK(std::string(text) == "kept");
    });
}

TEST_CASE("stream: a write to a closed peer raises SIGPIPE") {
    CHECK(run_in_child([] {
              SocketPair pair(SOCK_STREAM);
              pair.a.reset();
              (void)::write(pair.b.get(), "x", 1);
          }) == killed(SIGPIPE));
}

TEST_CASE("stream: unread data at the close resets the peer") {
    SocketPair pair(SOCK_STREAM);
    REQUIRE(write_all(pair.b.get(), "never read"));
    pair.a.reset();
    char c;
    CHECK_THAT(::read(pair.b.get(), &c, 1), fails_with(ECONNRESET));
}

TEST_CASE("stream: connect, accept, names of both sides") {
    TempDir dir;
    const Address address(dir / "socket");
    const FileDescriptor server = listener(address);
    const FileDescriptor client = make_socket(SOCK_STREAM);
    REQUIRE_THAT(::connect(client.get(), address.get(), address.length), succeeds());
    Fenced<sockaddr_un> peer;
    socklen_t length = sizeof(sockaddr_un);
    const FileDescriptor accepted(
        ::accept4(server.get(), reinterpret_cast<sockaddr*>(peer.get()), &length, SOCK_CLOEXEC));
    REQUIRE(accepted.valid());
    CHECK(length == sizeof(sa_family_t));  // the client has no name
    CHECK(peer.intact());
    sockaddr_un name;
    length = sizeof name;
    REQUIRE_THAT(::getpeername(client.get(), reinterpret_cast<sockaddr*>(&name), &length),
                 succeeds());
    CHECK(std::string(name.sun_path) == dir / "socket");
    REQUIRE(write_all(client.get(), "hello"));
    CHECK(read_exactly(accepted.get(), 5) == "hello");
    struct stat st;
    REQUIRE_THAT(::stat((dir / "socket").c_str(), &st), succeeds());
    CHECK(S_ISSOCK(st.st_mode));
}

TEST_CASE("stream: accept sleeps until somebody connects") {
    const Address address(abstract_name("accept"));
    const FileDescriptor server = listener(address);
    int fd = -1;
    Thread acceptor([&] { fd = ::accept(server.get(), nullptr, nullptr); });
    wait_until_blocked(::getpid(), acceptor.tid());
    const FileDescriptor client = make_socket(SOCK_STREAM);
    CHECK_THAT(::connect(client.get(), address.get(), address.length), succeeds());
    acceptor.join();
    CHECK(fd >= 0);
    ::close(fd);
}

TEST_CASE("stream: a full backlog makes a non-blocking connect fail with EAGAIN") {
    const Address address(abstract_name("backlog"));
    const FileDescriptor server = listener(address, SOCK_STREAM, 0);
    const FileDescriptor first = make_socket(SOCK_STREAM | SOCK_NONBLOCK);
    const FileDescriptor second = make_socket(SOCK_STREAM | SOCK_NONBLOCK);
    CHECK_THAT(::connect(first.get(), address.get(), address.length), succeeds());
    CHECK_THAT(::connect(second.get(), address.get(), address.length), fails_with(EAGAIN));
}

TEST_CASE("names: a path is taken once, freed by unlink; nobody listening is ECONNREFUSED") {
    TempDir dir;
    const Address address(dir / "socket");
    FileDescriptor server = listener(address);
    const FileDescriptor other = make_socket(SOCK_STREAM);
    CHECK_THAT(::bind(other.get(), address.get(), address.length), fails_with(EADDRINUSE));
    server.reset();
    CHECK_THAT(::connect(other.get(), address.get(), address.length), fails_with(ECONNREFUSED));
    REQUIRE_THAT(::unlink((dir / "socket").c_str()), succeeds());
    CHECK_THAT(::connect(other.get(), address.get(), address.length), fails_with(ENOENT));
    CHECK_THAT(::bind(other.get(), address.get(), address.length), succeeds());
    const Address second(dir / "second");
    CHECK_THAT(::bind(other.get(), second.get(), second.length), fails_with(EINVAL));
}

TEST_CASE("names: abstract ones hold every byte, vanish with the socket, and are in no directory") {
    const Address address(abstract_name("x") + std::string("\0y", 2));
    {
        const FileDescriptor server = listener(address);
        const FileDescriptor client = make_socket(SOCK_STREAM);
        CHECK_THAT(::connect(client.get(), address.get(), address.length), succeeds());
        CHECK_THAT(::connect(make_socket(SOCK_STREAM).get(), address.get(), address.length - 1),
                   fails_with(ECONNREFUSED));
    }
    const FileDescriptor again = listener(address);
    CHECK(again.valid());
}

TEST_CASE("names: autobind gives an abstract name of five hexadecimal digits") {
    const FileDescriptor fd = make_socket(SOCK_DGRAM);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    REQUIRE_THAT(::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof(sa_family_t)),
                 succeeds());
    socklen_t length = sizeof name;
    REQUIRE_THAT(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &length), succeeds());
    CHECK(length == sizeof(sa_family_t) + 6);
    CHECK(name.sun_path[0] == '\0');
}

TEST_CASE("names: getsockname writes no more than it was allowed, and tells the true length") {
    TempDir dir;
    const Address address(dir / "socket");
    const FileDescriptor server = listener(address);
    FencedBuffer buffer(6);
    socklen_t length = 6;
    REQUIRE_THAT(::getsockname(server.get(), reinterpret_cast<sockaddr*>(buffer.data()), &length),
                 succeeds());
    CHECK(length == address.length);
    CHECK(buffer.intact());
    length = static_cast<socklen_t>(-1);
    CHECK_THAT(::getsockname(server.get(), reinterpret_cast<sockaddr*>(buffer.data()), &length),
               fails_with(EINVAL));
}

TEST_CASE(
    "datagram: borders are kept, the sender's name comes along, the rest of a long one is lost") {
    TempDir dir;
    const Address a(dir / "a"), b(dir / "b");
    const FileDescriptor one = make_socket(SOCK_DGRAM), two = make_socket(SOCK_DGRAM);
    REQUIRE_THAT(::bind(one.get(), a.get(), a.length), succeeds());
    REQUIRE_THAT(::bind(two.get(), b.get(), b.length), succeeds());
    CHECK_THAT(::sendto(one.get(), "first", 5, 0, b.get(), b.length), succeeds_with(5));
    CHECK_THAT(::sendto(one.get(), "", 0, 0, b.get(), b.length), succeeds_with(0));
    CHECK_THAT(::sendto(one.get(), "second", 6, 0, b.get(), b.length), succeeds_with(6));
    char buffer[16];
    sockaddr_un from{};
    socklen_t length = sizeof from;
    CHECK_THAT(::recvfrom(two.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from),
                          &length),
               succeeds_with(5));
    CHECK(std::string(from.sun_path) == dir / "a");
    CHECK_THAT(::recv(two.get(), buffer, sizeof buffer, 0), succeeds_with(0));
    CHECK_THAT(::recv(two.get(), buffer, 3, MSG_TRUNC), succeeds_with(6));
    CHECK_THAT(::recv(two.get(), buffer, sizeof buffer, MSG_DONTWAIT), fails_with(EAGAIN));
}

TEST_CASE("datagram: connected ones refuse strangers, unconnected sends need an address") {
    const FileDescriptor one = make_socket(SOCK_DGRAM), two = make_socket(SOCK_DGRAM),
                         three = make_socket(SOCK_DGRAM);
    const Address a(abstract_name("dg-a")), b(abstract_name("dg-b"));
    REQUIRE_THAT(::bind(one.get(), a.get(), a.length), succeeds());
    REQUIRE_THAT(::bind(two.get(), b.get(), b.length), succeeds());
    REQUIRE_THAT(::connect(one.get(), b.get(), b.length), succeeds());
    CHECK_THAT(::sendto(three.get(), "x", 1, 0, a.get(), a.length), fails_with(EPERM));
    CHECK_THAT(::send(three.get(), "x", 1, 0), fails_with(ENOTCONN));
    CHECK_THAT(::send(one.get(), "y", 1, 0), succeeds_with(1));
}

TEST_CASE("seqpacket: connected, and borders are kept") {
    SocketPair pair(SOCK_SEQPACKET);
    CHECK_THAT(::send(pair.a.get(), "one", 3, 0), succeeds_with(3));
    CHECK_THAT(::send(pair.a.get(), "three", 5, 0), succeeds_with(5));
    char buffer[16];
    CHECK_THAT(::recv(pair.b.get(), buffer, sizeof buffer, 0), succeeds_with(3));
    CHECK_THAT(::recv(pair.b.get(), buffer, sizeof buffer, 0), succeeds_with(5));
    pair.a.reset();
    CHECK_THAT(::recv(pair.b.get(), buffer, sizeof buffer, 0), succeeds_with(0));
}

TEST_CASE("SCM_RIGHTS: the received descriptor is the same open file") {
    TempDir dir;
    SocketPair pair(SOCK_STREAM);
    {
        const FileDescriptor fd = open_file(dir.file("f", "0123456789"), O_RDONLY);
        REQUIRE_THAT(::lseek(fd.get(), 4, SEEK_SET), succeeds());
        REQUIRE_THAT(send_fds(pair.a.get(), {fd.get()}), succeeds_with(1));
    }
    const auto fds = receive_fds(pair.b.get());
    REQUIRE(fds.size() == 1);
    const FileDescriptor received(fds[0]);
    CHECK(read_exactly(received.get(), 2) == "45");
    CHECK_THAT(::fcntl(received.get(), F_GETFD), succeeds_with(0));
}

TEST_CASE("SCM_RIGHTS: MSG_CMSG_CLOEXEC, several at once, and the order is kept") {
    SocketPair pair(SOCK_DGRAM);
    Pipe a, b;
    REQUIRE_THAT(send_fds(pair.a.get(), {a.read_end.get(), b.read_end.get(), a.read_end.get()}),
                 succeeds_with(1));
    const auto fds = receive_fds(pair.b.get(), MSG_CMSG_CLOEXEC);
    REQUIRE(fds.size() == 3);
    const FileDescriptor first(fds[0]), second(fds[1]), third(fds[2]);
    CHECK_THAT(::fcntl(first.get(), F_GETFD), succeeds_with(FD_CLOEXEC));
    REQUIRE(write_all(b.write_end.get(), "b"));
    CHECK(read_exactly(second.get(), 1) == "b");
}

TEST_CASE("SCM_RIGHTS: without room the rest is closed and MSG_CTRUNC set") {
    SocketPair pair(SOCK_DGRAM);
    Pipe pipe;
    REQUIRE_THAT(send_fds(pair.a.get(), {pipe.write_end.get(), pipe.write_end.get()}),
                 succeeds_with(1));
    pipe.write_end.reset();
    int flags = 0;
    const auto fds = receive_fds(pair.b.get(), 0, 1, &flags);
    REQUIRE(fds.size() == 1);
    CHECK((flags & MSG_CTRUNC) != 0);
    ::close(fds[0]);
    char c;
    CHECK_THAT(::read(pipe.read_end.get(), &c, 1), succeeds_with(0));  // no writer is left
}

TEST_CASE("SCM_RIGHTS: descriptors in flight are closed with an unread socket") {
    Pipe pipe;
    {
        SocketPair pair(SOCK_STREAM);
        REQUIRE_THAT(send_fds(pair.a.get(), {pipe.write_end.get()}), succeeds_with(1));
        pipe.write_end.reset();
    }
    char c;
    CHECK_THAT(::read(pipe.read_end.get(), &c, 1), succeeds_with(0));
}

TEST_CASE("SCM_RIGHTS: a socket sent through itself is collected in the end") {
    Pipe pipe;
    {
        SocketPair pair(SOCK_STREAM);
        REQUIRE_THAT(send_fds(pair.a.get(), {pair.a.get(), pair.b.get(), pipe.write_end.get()}),
                     succeeds_with(1));
        pipe.write_end.reset();
    }
    // Linux collects such circles when later sockets are closed.
    // A bounded number of them, so that a kernel that does not collect has room for the next cases.
    bool collected = false;
    for (int i = 0; i < 500 && !collected; i++) {
        {
            SocketPair again(SOCK_STREAM);
            send_fds(again.a.get(), {again.b.get()});
        }
        pollfd entry{pipe.read_end.get(), POLLIN, 0};
        collected = ::poll(&entry, 1, 10) == 1 && (entry.revents & POLLHUP);
    }
    CHECK(collected);
}

TEST_CASE("SCM_RIGHTS: bad descriptors and lengths fail with EBADF or EINVAL") {
    SocketPair pair(SOCK_STREAM);
    CHECK_THAT(send_fds(pair.a.get(), {999}), fails_with(EBADF));
    CHECK_THAT(send_fds(pair.a.get(), std::vector<int>(254, 1)), fails_with(EINVAL));
    CHECK_THAT(send_fds(pair.a.get(), std::vector<int>(253, 1)), succeeds_with(1));
}

TEST_CASE("SO_PEERCRED: who the other side was") {
    SocketPair pair(SOCK_STREAM);
    Fenced<ucred> who;
    socklen_t length = sizeof(ucred);
    REQUIRE_THAT(::getsockopt(pair.a.get(), SOL_SOCKET, SO_PEERCRED, who.get(), &length),
                 succeeds());
    CHECK(who->pid == ::getpid());
    CHECK(who->uid == ::geteuid());
    CHECK(who->gid == ::getegid());
    CHECK(who.intact());
}

TEST_CASE("SCM_CREDENTIALS: SO_PASSCRED adds the sender, an unprivileged sender cannot lie") {
    SocketPair pair(SOCK_DGRAM);
    int on = 1;
    REQUIRE_THAT(::setsockopt(pair.b.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on), succeeds());
    Child sender([&] {
        CHILD_THAT(::setgid(12345), succeeds());
        CHILD_THAT(::setuid(12345), succeeds());
        char byte = 'c', control[CMSG_SPACE(sizeof(ucred))] = {};
        iovec part{&byte, 1};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_CREDENTIALS;
        header->cmsg_len = CMSG_LEN(sizeof(ucred));
        const ucred lie{1, 0, 0};
        std::memcpy(CMSG_DATA(header), &lie, sizeof lie);
        CHILD_THAT(::sendmsg(pair.a.get(), &message, 0), fails_with(EPERM));
        CHILD_THAT(::send(pair.a.get(), "t", 1, 0), succeeds_with(1));
    });
    CHECK(sender.wait() == exited(0));
    char byte, control[CMSG_SPACE(sizeof(ucred))];
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    REQUIRE_THAT(::recvmsg(pair.b.get(), &message, 0), succeeds_with(1));
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    REQUIRE(header != nullptr);
    CHECK(header->cmsg_type == SCM_CREDENTIALS);
    ucred who;
    std::memcpy(&who, CMSG_DATA(header), sizeof who);
    CHECK(who.pid == sender.pid());
    CHECK(who.uid == 12345);
}

TEST_CASE("shutdown: each direction by itself") {
    SocketPair pair(SOCK_STREAM);
    REQUIRE_THAT(::shutdown(pair.a.get(), SHUT_WR), succeeds());
    char c;
    CHECK_THAT(::read(pair.b.get(), &c, 1), succeeds_with(0));
    CHECK_THAT(::send(pair.a.get(), "x", 1, MSG_NOSIGNAL), fails_with(EPIPE));
    REQUIRE(write_all(pair.b.get(), "y"));
    CHECK(read_exactly(pair.a.get(), 1) == "y");
    CHECK_THAT(::shutdown(pair.a.get(), 9), fails_with(EINVAL));
    CHECK_THAT(::shutdown(make_socket(SOCK_STREAM).get(), SHUT_RD), succeeds());  // unlike TCP
}

TEST_CASE("MSG_PEEK: looks without taking; MSG_WAITALL waits for all") {
    SocketPair pair(SOCK_STREAM);
    REQUIRE(write_all(pair.a.get(), "peek"));
    char buffer[16];
    CHECK_THAT(::recv(pair.b.get(), buffer, 4, MSG_PEEK), succeeds_with(4));
    CHECK_THAT(::recv(pair.b.get(), buffer, 4, 0), succeeds_with(4));
    ssize_t n = 0;
    Thread reader([&] { n = ::recv(pair.b.get(), buffer, 6, MSG_WAITALL); });
    wait_until_blocked(::getpid(), reader.tid());
    REQUIRE(write_all(pair.a.get(), "abc"));
    wait_until_blocked(::getpid(), reader.tid());
    REQUIRE(write_all(pair.a.get(), "def"));
    reader.join();
    CHECK(n == 6);
}

TEST_CASE("buffers: a full socket blocks its writer until somebody reads") {
    SocketPair pair(SOCK_STREAM);
    const std::string big(1 << 20, 'b');
    ssize_t written = 0;
    Thread writer([&] { written = ::write(pair.a.get(), big.data(), big.size()); });
    CHECK(read_exactly(pair.b.get(), big.size()) == big);
    writer.join();
    CHECK(written == static_cast<ssize_t>(big.size()));
}

TEST_CASE("sendmmsg and recvmmsg: several messages in one call") {
    SocketPair pair(SOCK_DGRAM);
    char one[] = "1", two[] = "22";
    iovec parts[2] = {{one, 1}, {two, 2}};
    mmsghdr messages[2] = {};
    for (int i = 0; i < 2; ++i) {
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    CHECK_THAT(::sendmmsg(pair.a.get(), messages, 2, 0), succeeds_with(2));
    char a[8], b[8];
    iovec in[2] = {{a, 8}, {b, 8}};
    mmsghdr got[2] = {};
    for (int i = 0; i < 2; ++i) {
        got[i].msg_hdr.msg_iov = &in[i];
        got[i].msg_hdr.msg_iovlen = 1;
    }
    CHECK_THAT(::recvmmsg(pair.b.get(), got, 2, 0, nullptr), succeeds_with(2));
    CHECK(got[0].msg_len == 1);
    CHECK(got[1].msg_len == 2);
}

TEST_CASE("options: type, domain, accepting, timeouts") {
    const FileDescriptor fd = make_socket(SOCK_STREAM);
    int value = -1;
    socklen_t length = sizeof value;
    CHECK_THAT(::getsockopt(fd.get(), SOL_SOCKET, SO_TYPE, &value, &length), succeeds());
    CHECK(value == SOCK_STREAM);
    CHECK_THAT(::getsockopt(fd.get(), SOL_SOCKET, SO_DOMAIN, &value, &length), succeeds());
    CHECK(value == AF_UNIX);
    CHECK_THAT(::getsockopt(fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &value, &length), succeeds());
    CHECK(value == 0);
    SocketPair pair(SOCK_STREAM);
    const timeval brief{0, 10'000};
    REQUIRE_THAT(::setsockopt(pair.a.get(), SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief),
                 succeeds());
    char c;
    CHECK_THAT(::read(pair.a.get(), &c, 1), fails_with(EAGAIN));
    CHECK_THAT(::setsockopt(fd.get(), SOL_SOCKET, 9999, &value, sizeof value),
               fails_with(ENOPROTOOPT));
    CHECK_THAT(::getsockopt(fd.get(), SOL_SOCKET, SO_TYPE, bad<int>(), &length),
               fails_with(EFAULT));
}

TEST_CASE("socket: unknown families, types and protocols fail") {
    int fds[2];
    CHECK_THAT(::socket(999, SOCK_STREAM, 0), fails_with(EAFNOSUPPORT));
    CHECK_THAT(::socket(AF_UNIX, 99, 0), fails_with(EINVAL));
    CHECK_THAT(::socket(AF_UNIX, SOCK_STREAM, 77), fails_with(EPROTONOSUPPORT));
    CHECK_THAT(::socketpair(AF_INET, SOCK_STREAM, 0, fds), fails_with(EOPNOTSUPP));
    CHECK_THAT(::socketpair(AF_UNIX, SOCK_STREAM, 0, bad<int>()), fails_with(EFAULT));
    CHECK_THAT(::listen(1, 1), fails_with(ENOTSOCK));
    CHECK_THAT(::accept(make_socket(SOCK_STREAM).get(), nullptr, nullptr), fails_with(EINVAL));
}

TEST_CASE("sendmsg: wild headers fail, and nothing is sent") {
    SocketPair pair(SOCK_STREAM);
    char byte = 'x';
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1025;
    CHECK_THAT(::sendmsg(pair.a.get(), &message, 0), fails_with(EMSGSIZE));
    message.msg_iovlen = 1;
    message.msg_control = bad<void>();
    message.msg_controllen = 64;
    CHECK_THAT(::sendmsg(pair.a.get(), &message, 0), fails_with(EFAULT));
    cmsghdr header{};
    header.cmsg_len = 4;  // shorter than itself
    message.msg_control = &header;
    message.msg_controllen = sizeof header;
    CHECK_THAT(::sendmsg(pair.a.get(), &message, 0), fails_with(EINVAL));
    header.cmsg_len = 1 << 20;
    CHECK_THAT(::sendmsg(pair.a.get(), &message, 0), fails_with(EINVAL));
    CHECK_THAT(::sendmsg(pair.a.get(), bad<msghdr>(), 0), fails_with(EFAULT));
    char c;
    CHECK_THAT(::recv(pair.b.get(), &c, 1, MSG_DONTWAIT), fails_with(EAGAIN));
}

TEST_CASE("ioctl FIOASYNC: a socket takes it, on and off") {
    SocketPair pair(SOCK_STREAM);
    int on = 1, off = 0;
    CHECK_THAT(::ioctl(pair.a.get(), FIOASYNC, &on), succeeds());
    CHECK_THAT(::ioctl(pair.a.get(), FIOASYNC, &off), succeeds());
    CHECK_THAT(::ioctl(pair.a.get(), FIOASYNC, bad<int>()), fails_with(EFAULT));
}

}  // namespace
