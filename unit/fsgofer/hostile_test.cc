// Whatever a sentry sends: the server answers or ends the channel, touches nothing outside its
// mount, and keeps no descriptor.

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "fsgofer/protocol/wire.h"
#include "unit/fsgofer/harness.h"

using namespace moat;
using namespace moat::gofer;
using namespace moat::gofer::test;

namespace {

/// A server in this process, without a channel: mutated messages go straight to its decoder.
struct InProcess {
    explicit InProcess(const TempDir& dir, uint32_t flags = 0)
        : base(::open("/", O_PATH | O_CLOEXEC)), server(32) {
        REQUIRE(server.add_mount({base.get(), dir.path().substr(1), "/", flags}).ok());
    }
    ScopedFd base;
    Server server;
};

template <typename T>
std::string request(Op op, const T& body, std::string_view tail = "") {
    std::string text(sizeof(Header) + sizeof body, '\0');
    text += tail;
    Header header;
    header.op = op;
    header.length = static_cast<uint32_t>(text.size());
    memcpy(text.data(), &header, sizeof header);
    memcpy(text.data() + sizeof header, static_cast<const void*>(&body), sizeof body);
    return text;
}

/// The errno of the answer, or -1 if the channel has to end.
int answer_of(Server& server, const std::string& message) {
    const auto answer = server.handle(message.data(), message.size());
    if (!answer.ok()) {
        return -1;
    }
    Header header;
    REQUIRE(answer->packet.size() >= sizeof header);
    memcpy(&header, answer->packet.data(), sizeof header);
    CHECK(header.length == answer->packet.size());
    return header.error;
}

/// One good message of each kind, over the nodes that a tree of a, a/f, a/l, s has.
std::vector<std::string> good_messages(NodeId root, NodeId directory, NodeId file) {
    std::vector<std::string> all;
    const auto text = [](const char* s) { return std::string_view(s); };
    all.push_back(request(Op::kHello, HelloRequest{}));
    all.push_back(request(Op::kWalk, WalkRequest{root, kNoOpen, 3}, text("a/f")));
    all.push_back(request(Op::kWalk, WalkRequest{root, O_RDWR, 3}, text("a/f")));
    all.push_back(request(Op::kWalk, WalkRequest{root, kNoOpen, 3}, text("a/l")));
    all.push_back(request(Op::kStat, NodeRequest{file}));
    all.push_back(request(Op::kReadLink, NodeRequest{file}));
    all.push_back(request(Op::kStatfs, NodeRequest{root}));
    all.push_back(request(Op::kSetAttributes, SetAttributesRequest{file, kSetMode, 0644}));
    all.push_back(request(Op::kOpen, OpenRequest{file, O_RDONLY, 0}));
    all.push_back(request(Op::kFsync, FsyncRequest{file, 1, 0}));
    all.push_back(request(Op::kConnect, ConnectRequest{file, SOCK_STREAM, 0}));
    MakeRequest make;
    make.parent = directory;
    make.mode = 0755;
    make.name_length = 1;
    all.push_back(request(Op::kMkdir, make, text("d")));
    all.push_back(request(Op::kCreate, make, text("c")));
    make.mode |= S_IFIFO;
    all.push_back(request(Op::kMknod, make, text("p")));
    make.target_length = 4;
    all.push_back(request(Op::kSymlink, make, text("s/etc")));
    all.push_back(request(Op::kLink, LinkRequest{file, directory, 1, 0}, text("h")));
    all.push_back(request(Op::kUnlink, UnlinkRequest{directory, 0, 1}, text("h")));
    all.push_back(
        request(Op::kRename, RenameRequest{directory, directory, 0, 1, 1, 0}, text("df")));
    all.push_back(request(Op::kReadDir, ReadDirRequest{directory, 0, 1, 0}));
    all.push_back(request(Op::kGetXattr, XattrRequest{file, 0, 6, 0, 0}, text("user.a")));
    all.push_back(request(Op::kSetXattr, XattrRequest{file, 0, 6, 3, 0}, text("user.aabc")));
    all.push_back(request(Op::kListXattr, XattrRequest{file, 0, 0, 0, 0}));
    all.push_back(request(Op::kRemoveXattr, XattrRequest{file, 0, 6, 0, 0}, text("user.a")));
    std::string items(2 * sizeof(CloseItem), '\0');
    all.push_back(request(Op::kClose, CloseRequest{2, 0}, items));
    return all;
}

void make_tree(const TempDir& dir) {
    dir.directory("a");
    dir.file("a/f", "abc");
    dir.link("a/l", "../../../etc/passwd");
}

}  // namespace

TEST_CASE("decoder: lengths that lie end the channel") {
    TempDir dir;
    make_tree(dir);
    InProcess in(dir);
    const NodeId root = in.server.nodes().id_of(0);
    CHECK(answer_of(in.server, "") == -1);
    CHECK(answer_of(in.server, std::string(8, '\0')) == -1);
    CHECK(answer_of(in.server, request(Op::kWalk, WalkRequest{root, kNoOpen, 4}, "a/f")) == -1);
    CHECK(answer_of(in.server, request(Op::kWalk, WalkRequest{root, kNoOpen, 2}, "a/f")) == -1);
    CHECK(answer_of(in.server, request(Op::kWalk, WalkRequest{root, kNoOpen, UINT32_MAX}, "a/f")) ==
          -1);
    CHECK(answer_of(in.server, request(Op::kWalk, WalkRequest{root, kNoOpen, 3}, "a/f")) == 0);
    CHECK(answer_of(in.server,
                    request(Op::kClose, CloseRequest{UINT32_MAX, 0}, std::string(16, '\0'))) == -1);
    CHECK(answer_of(in.server, request(static_cast<Op>(0), NodeRequest{root})) == -1);
    CHECK(answer_of(in.server, request(Op::kEnd, NodeRequest{root})) == -1);
    CHECK(answer_of(in.server, request(static_cast<Op>(0xffff), NodeRequest{root})) == -1);
    std::string wrong_length = request(Op::kStat, NodeRequest{root});
    wrong_length[0]++;
    CHECK(answer_of(in.server, wrong_length) == -1);
    HelloRequest hello;
    hello.version = 99;
    CHECK(answer_of(in.server, request(Op::kHello, hello)) == EPROTONOSUPPORT);
    hello = {};
    hello.first_mount = UINT32_MAX;
    CHECK(answer_of(in.server, request(Op::kHello, hello)) == 0);
    CHECK(answer_of(in.server, request(Op::kStat, NodeRequest{0xdead'beef'dead'beef})) == EBADF);
}

TEST_CASE("decoder: every message cut short or too long ends the channel") {
    TempDir dir;
    make_tree(dir);
    InProcess in(dir);
    const NodeId root = in.server.nodes().id_of(0);
    for (const std::string& message : good_messages(root, root, root)) {
        for (size_t size = 0; size < message.size(); size++) {
            std::string cut = message.substr(0, size);
            if (cut.size() >= 4) {
                const auto length = static_cast<uint32_t>(size);
                memcpy(cut.data(), &length, sizeof length);
            }
            CHECK_FALSE(in.server.handle(cut.data(), cut.size()).ok());
        }
        std::string longer = message + "x";
        const auto length = static_cast<uint32_t>(longer.size());
        memcpy(longer.data(), &length, sizeof length);
        CHECK_FALSE(in.server.handle(longer.data(), longer.size()).ok());
    }
}

TEST_CASE("decoder: mutated and random messages do no harm") {
    TempDir outside;
    outside.file("canary", "alive");
    TempDir dir;
    make_tree(dir);
    struct stat before;
    REQUIRE(::stat((outside / "canary").c_str(), &before) == 0);
    const size_t descriptors = count_descriptors(::getpid());
    const unsigned seed = std::random_device()();
    MESSAGE("seed " << seed);
    {
        // Changes of owner to random users are part of it, so also this runs over a writable mount.
        InProcess in(dir, kMountFifos | kMountConnect);
        std::mt19937 random(seed);
        const auto pick = [&](size_t n) { return static_cast<size_t>(random()) % n; };
        const NodeId root = in.server.nodes().id_of(0);
        REQUIRE(answer_of(in.server, request(Op::kWalk, WalkRequest{root, kNoOpen, 3}, "a/f")) ==
                0);
        const NodeId directory = in.server.nodes().id_of(1);
        const NodeId file = in.server.nodes().id_of(2);
        const auto good = good_messages(root, directory, file);
        int answered = 0;
        for (int i = 0; i < 60'000; i++) {
            std::string message = good[pick(good.size())];
            const size_t changes = pick(4);
            for (size_t c = 0; c < changes; c++) {
                const size_t at = sizeof(Header) + pick(message.size() - sizeof(Header));
                switch (pick(4)) {
                    case 0:
                        message[at] = static_cast<char>(random());
                        break;
                    case 1:
                        message[at] = static_cast<char>(message[at] ^ (1 << pick(8)));
                        break;
                    case 2:
                        message.insert(at, 1, "./\0\xff"[pick(4)]);
                        break;
                    default:
                        if (message.size() > sizeof(Header) + 1) {
                            message.erase(at, 1);
                        }
                }
            }
            if (pick(20) == 0) {
                for (size_t at = sizeof(Header); at < message.size(); at++) {
                    message[at] = static_cast<char>(random());
                }
            }
            if (pick(50) != 0) {
                const auto length = static_cast<uint32_t>(message.size());
                memcpy(message.data(), &length, sizeof length);
            }
            Header header;
            memcpy(&header, message.data(), sizeof header);
            SetAttributesRequest set;
            if (header.op == Op::kSetAttributes && message.size() == sizeof header + sizeof set) {
                memcpy(static_cast<void*>(&set), message.data() + sizeof header, sizeof set);
                if ((set.mask & kSetSize) != 0) {
                    // A size of terabytes is legal; the test's file system need not bear it.
                    continue;
                }
            }
            const auto answer = in.server.handle(message.data(), message.size());
            answered += answer.ok() ? 1 : 0;
            if (answer.ok()) {
                REQUIRE(answer->packet.size() <= kMaxMessage);
            }
        }
        CHECK(answered > 10'000);
        CHECK(count_descriptors(::getpid()) <= descriptors + 32 + 16);
    }
    CHECK(count_descriptors(::getpid()) == descriptors);
    CHECK(outside.read("canary") == "alive");
    struct stat after;
    REQUIRE(::stat((outside / "canary").c_str(), &after) == 0);
    CHECK(before.st_ctim.tv_nsec == after.st_ctim.tv_nsec);
}

TEST_CASE("server: a broken message ends its channel only; descriptors sent to it end it too") {
    TempDir dir;
    make_tree(dir);
    Gofer gofer(dir);
    MUST(gofer->walk(gofer.root(), "a/f"));
    SUBCASE("garbage on the only channel makes the server go") {
        SocketPair channel = make_channel();
        const pid_t pid = ::fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            channel.ours.reset();
            const ScopedFd base(::open("/", O_PATH));
            Server server(16);
            const bool good = server.add_mount({base.get(), dir.path().substr(1), "/", 0}).ok();
            ::_exit(good && server.serve(std::move(channel.theirs)).ok() ? 0 : 8);
        }
        channel.theirs.reset();
        CHECK(::send(channel.ours.get(), "garbage", 7, MSG_NOSIGNAL) == 7);
        CHECK(wait_for(pid) == 0);
        char byte;
        CHECK(::recv(channel.ours.get(), &byte, 1, 0) == 0);
    }
    SUBCASE("a descriptor that comes along is not taken in") {
        SocketPair channel = make_channel();
        const pid_t pid = ::fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            channel.ours.reset();
            const ScopedFd base(::open("/", O_PATH));
            Server server(16);
            const bool good = server.add_mount({base.get(), dir.path().substr(1), "/", 0}).ok();
            ::_exit(good && server.serve(std::move(channel.theirs)).ok() ? 0 : 8);
        }
        channel.theirs.reset();
        const std::string hello = request(Op::kHello, HelloRequest{});
        REQUIRE(
            send_packet(channel.ours.get(), hello.data(), hello.size(), channel.ours.get()).ok());
        CHECK(wait_for(pid) == 0);
    }
}

TEST_CASE("client: an answer that makes no sense fails this call and all later ones") {
    TempDir dir;
    SocketPair channel = make_channel();
    const pid_t pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        // A gofer that says hello properly and then lies about its lengths.
        channel.ours.reset();
        const ScopedFd base(::open("/", O_PATH));
        Server server(16);
        bool good = server.add_mount({base.get(), dir.path().substr(1), "/", 0}).ok();
        char buffer[kMaxMessage];
        const auto size = receive_packet(channel.theirs.get(), buffer, sizeof buffer, nullptr);
        const auto answer = server.handle(buffer, size.value_or(0));
        good = good &&
               send_packet(channel.theirs.get(), answer->packet.data(), answer->packet.size()).ok();
        good = good && receive_packet(channel.theirs.get(), buffer, sizeof buffer, nullptr).ok();
        Writer out(buffer);
        ReadDirReply reply;
        reply.count = 1'000'000;
        good = good && out.put(reply);
        Header header;
        header.op = Op::kReadDir;
        header.sequence = 1;
        out.set_header(header);
        good = good && send_packet(channel.theirs.get(), buffer, out.size()).ok();
        ::_exit(good ? 0 : 7);
    }
    channel.theirs.reset();
    auto client = MUST(Client::connect(std::move(channel.ours)));
    CHECK_ERRNO(EIO, client->read_dir(client->mounts()[0].root.id, 0, false));
    CHECK_ERRNO(EIO, client->stat(client->mounts()[0].root.id));
    CHECK(wait_for(pid) == 0);
}
