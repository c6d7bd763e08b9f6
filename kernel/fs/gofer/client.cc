#include "kernel/fs/gofer/client.h"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>

#include "fsgofer/protocol/polling.h"
#include "fsgofer/protocol/wire.h"
#include "kernel/base/log.h"
#include "kernel/base/mutex.h"

namespace moat::gofer {

namespace {

/// One socket and the memory for one message: the request is written into it, the answer read over
/// it.
struct Channel {
    ScopedFd socket;
    std::unique_ptr<char[]> buffer{new char[kMaxMessage]};
    uint32_t sequence = 0;
    Polling polling;
};

}  // namespace

/// The channels: one at first, and one more each time that somebody had to wait, up to
/// kMaxChannels.
struct Client::Impl {
    Mutex<LockRank::kFileSystem> mu;
    std::condition_variable_any free_channel;
    std::vector<std::unique_ptr<Channel>> idle GUARDED_BY(mu);
    size_t channels GUARDED_BY(mu) = 0;
    bool more_wanted GUARDED_BY(mu) = false;
    std::atomic<bool> dead{false};  // relaxed: it only saves attempts that would fail by themselves

    void add(std::unique_ptr<Channel> channel, bool is_new) {
        {
            MutexLock lock(mu);
            idle.push_back(std::move(channel));
            channels += is_new ? 1 : 0;
        }
        free_channel.notify_one();
    }

    std::unique_ptr<Channel> take() NO_THREAD_SAFETY_ANALYSIS {
        MutexLock lock(mu);
        if (idle.empty()) {
            more_wanted = true;
            free_channel.wait(mu, [&] { return !idle.empty(); });
        }
        // The one used last: its buffer is in the cache.
        auto channel = std::move(idle.back());
        idle.pop_back();
        return channel;
    }

    bool shall_open_more() {
        MutexLock lock(mu);
        return std::exchange(more_wanted, false) && channels < kMaxChannels;
    }

    Errno die(const char* why) {
        if (!dead.exchange(true, std::memory_order_relaxed)) {
            LOG(kError, "fs.gofer", "the connection is given up: %s", why);
        }
        return Errno(EIO);
    }
};

namespace {

/// What came back, its header taken off. Borrows the channel's buffer, so it ends before the Call.
struct Answer {
    Reader body;
    ScopedFd fd;
};

/// A channel for one request, put back at its end.
template <typename Impl>
class Call {
  public:
    Call(Impl& impl, Op op) : impl_(impl), op_(op) {
        assert_no_locks_held("gofer request");
        channel_ = impl.take();
        if (impl.shall_open_more()) {
            open_more();
        }
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() { impl_.add(std::move(channel_), false); }

    /// Sends the request's struct and bytes, and waits for its answer. What is too long for a
    /// message is too long for Linux as well. The gofer's errno, or EIO.
    template <typename Request, typename... Bytes>
    Result<Answer> run(const Request& request, const Bytes&... bytes) {
        Writer out(channel_->buffer.get());
        if (!out.put(request) || !(out.put_bytes(bytes) && ...)) {
            return Errno(ENAMETOOLONG);
        }
        return exchange(out, op_);
    }

    /// The same without an answer.
    void post(Writer& out) {
        if (impl_.dead.load(std::memory_order_relaxed)) {
            return;
        }
        send(out, op_);
    }
    char* buffer() { return channel_->buffer.get(); }

    /// The answer's body has been read: was there as much as there should be?
    Status finish(Answer& answer) {
        if (!answer.body.finish().ok()) {
            return impl_.die("the gofer's answer makes no sense");
        }
        return {};
    }

    template <typename T, typename Request, typename... Bytes>
    Result<T> run_for(const Request& request, const Bytes&... bytes) {
        auto answer = TRY(run(request, bytes...));
        const T value = answer.body.template take<T>();
        TRY(finish(answer));
        return value;
    }
    template <typename Request, typename... Bytes>
    Status run_for_nothing(const Request& request, const Bytes&... bytes) {
        auto answer = TRY(run(request, bytes...));
        return finish(answer);
    }
    template <typename Request, typename... Bytes>
    Result<std::string> run_for_bytes(const Request& request, const Bytes&... bytes) {
        auto answer = TRY(run(request, bytes...));
        return std::string(answer.body.bytes(answer.body.left()));
    }

    Result<Answer> exchange(Writer& out, Op op) {
        if (impl_.dead.load(std::memory_order_relaxed)) {
            return Errno(EIO);
        }
        if (!send(out, op)) {
            return Errno(EIO);
        }
        ScopedFd fd;
        const auto receive = [&](int flags) {
            return receive_packet(channel_->socket.get(), channel_->buffer.get(), kMaxMessage, &fd,
                                  flags);
        };
        Result<size_t> size = Errno(EAGAIN);
        if (!channel_->polling.poll([&] {
                size = receive(MSG_DONTWAIT);
                return size.ok() || size.error() != EAGAIN;
            })) {
            size = receive(0);
        }
        if (!size.ok() || *size == 0) {
            return impl_.die(size.ok() ? "the gofer has closed it" : "it cannot be read");
        }
        Reader in(channel_->buffer.get(), *size);
        const auto header = in.take<Header>();
        if (in.failed() || header.length != *size || header.op != op ||
            header.sequence != channel_->sequence || header.fds != (fd.valid() ? 1 : 0) ||
            header.error < 0 || header.error >= 512) {
            return impl_.die("the gofer's answer makes no sense");
        }
        if (header.error != 0) {
            return Errno(header.error);
        }
        return Answer{in, std::move(fd)};
    }

  private:
    bool send(Writer& out, Op op) {
        Header header;
        header.op = op;
        header.sequence = ++channel_->sequence;
        out.set_header(header);
        if (!send_packet(channel_->socket.get(), channel_->buffer.get(), out.size()).ok()) {
            (void)impl_.die("it cannot be written to");
            return false;
        }
        return true;
    }

    void open_more() {
        Writer out(channel_->buffer.get());
        auto answer = exchange(out, Op::kOpenChannel);
        // Without another channel we go on with those there are.
        if (answer.ok() && answer->fd.valid()) {
            auto opened = std::make_unique<Channel>();
            opened->socket = std::move(answer->fd);
            impl_.add(std::move(opened), true);
        }
    }

    Impl& impl_;
    Op op_;
    std::unique_ptr<Channel> channel_;
};

template <typename Impl>
Call(Impl&, Op) -> Call<Impl>;

XattrRequest xattr_request(NodeId node, std::string_view name) {
    XattrRequest request;
    request.node = node;
    request.name_length = static_cast<uint32_t>(name.size());
    return request;
}

MakeRequest make_request(NodeId parent, std::string_view name, const NewOwner& owner) {
    MakeRequest request;
    request.parent = parent;
    request.mode = owner.mode;
    request.uid = owner.uid;
    request.gid = owner.gid;
    request.name_length = static_cast<uint32_t>(name.size());
    return request;
}

UnlinkRequest unlink_request(NodeId parent, std::string_view name, bool directory) {
    UnlinkRequest request;
    request.parent = parent;
    request.directory = directory ? 1 : 0;
    request.name_length = static_cast<uint32_t>(name.size());
    return request;
}

}  // namespace

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Client::~Client() = default;

Result<std::unique_ptr<Client>> Client::connect(ScopedFd socket, std::string* message) {
    assert_no_locks_held("gofer connect");
    std::vector<Mount> mounts;
    auto channel = std::make_unique<Channel>();
    channel->socket = std::move(socket);
    const auto fail = [&](int error, std::string_view text) {
        if (message != nullptr) {
            *message = text;
        }
        return Errno(error);
    };
    // Not by Call: a gofer that could not get ready may have said so, in words, before we asked,
    // and closed its end.
    while (true) {
        HelloRequest request;
        request.first_mount = static_cast<uint32_t>(mounts.size());
        Writer out(channel->buffer.get());
        CHECK(out.put(request));
        Header header;
        header.op = Op::kHello;
        out.set_header(header);
        (void)send_packet(channel->socket.get(), channel->buffer.get(), out.size()).ok();
        auto size =
            receive_packet(channel->socket.get(), channel->buffer.get(), kMaxMessage, nullptr);
        if (!size.ok() && size.error() == ECONNRESET) {
            // It went without having read our request, which is told before the words that it left:
            // they are next (Linux: net/unix/af_unix.c:unix_release_sock sets the error, reading
            // clears it).
            size =
                receive_packet(channel->socket.get(), channel->buffer.get(), kMaxMessage, nullptr);
        }
        if (!size.ok() || *size == 0) {
            return fail(ECONNRESET, "the gofer died before it was ready");
        }
        Reader in(channel->buffer.get(), *size);
        header = in.take<Header>();
        if (in.failed() || header.length != *size || header.op != Op::kHello || header.error < 0 ||
            header.error >= 512) {
            return fail(EPROTO, "the gofer's first answer makes no sense");
        }
        if (header.error != 0) {
            const auto text = in.bytes(in.left());
            return fail(header.error, text.empty() ? "the gofer refuses to serve" : text);
        }
        const auto reply = in.take<HelloReply>();
        for (uint32_t i = 0; i < reply.count && !in.failed(); i++) {
            const auto entry = in.take<MountEntry>();
            Mount mount;
            mount.root = entry.root;
            mount.fs_type = entry.fs_type;
            mount.flags = entry.flags;
            mount.destination = in.padded_bytes(entry.destination_length);
            mounts.push_back(std::move(mount));
        }
        if (!in.finish().ok() || reply.count == 0 || reply.mounts < mounts.size()) {
            return fail(EPROTO, "the gofer's list of mounts makes no sense");
        }
        if (reply.mounts == mounts.size()) {
            break;
        }
    }
    auto impl = std::make_unique<Impl>();
    impl->add(std::move(channel), true);
    std::unique_ptr<Client> client(new Client(std::move(impl)));
    client->mounts_ = std::move(mounts);
    return client;
}

// ---------------------------------------------------------------- finding

Result<WalkResult> Client::walk(NodeId base, std::string_view path, uint32_t open_flags) {
    WalkResult result;
    const auto give_back = [&] {
        std::vector<CloseItem> items;
        for (const Node& node : result.nodes) {
            items.push_back({node.id, 1});
        }
        close(items.data(), items.size());
    };
    while (true) {
        WalkReply reply;
        // The call ends, and its channel is free, before anything else is asked.
        const auto step = [&]() -> Status {
            Call call(*impl_, Op::kWalk);
            WalkRequest request;
            request.base = base;
            request.open_flags = open_flags;
            request.path_length = static_cast<uint32_t>(path.size());
            auto answer = TRY(call.run(request, path));
            reply = answer.body.take<WalkReply>();
            for (uint32_t i = 0; i < reply.count && !answer.body.failed(); i++) {
                result.nodes.push_back(answer.body.take<NodeEntry>());
            }
            result.target = answer.body.bytes(reply.target_length);
            result.file = std::move(answer.fd);
            return call.finish(answer);
        };
        const auto status = step();
        if (!status.ok()) {
            give_back();
            return status.error();
        }
        const bool more = reply.stop == WalkStop::kMore;
        if (reply.stop > WalkStop::kMore || (more && reply.count == 0) ||
            (reply.count == 0 && reply.stop != WalkStop::kError) ||
            (reply.stop == WalkStop::kError && reply.error <= 0)) {
            return impl_->die("a walk's answer makes no sense");
        }
        if (!more) {
            result.stop = reply.stop;
            result.error = reply.error;
            result.open_error = reply.open_error;
            return result;
        }
        for (uint32_t i = 0; i < reply.count; i++) {
            const size_t slash = path.find('/');
            if (slash == std::string_view::npos) {
                return impl_->die("a walk went past the path's end");
            }
            path.remove_prefix(slash + 1);
        }
        base = result.nodes.back().id;
    }
}

Result<Attributes> Client::stat(NodeId node) {
    return Call(*impl_, Op::kStat).run_for<Attributes>(NodeRequest{node});
}

Result<Attributes> Client::set_attributes(const SetAttributesRequest& request) {
    return Call(*impl_, Op::kSetAttributes).run_for<Attributes>(request);
}

Result<OpenedNode> Client::open(NodeId node, uint32_t flags) {
    Call call(*impl_, Op::kOpen);
    auto answer = TRY(call.run(OpenRequest{node, flags, 0}));
    OpenedNode opened;
    opened.attributes = answer.body.take<Attributes>();
    opened.file = std::move(answer.fd);
    TRY(call.finish(answer));
    if (!opened.file.valid()) {
        return impl_->die("an open came without a descriptor");
    }
    return opened;
}

Result<std::string> Client::read_link(NodeId node) {
    return Call(*impl_, Op::kReadLink).run_for_bytes(NodeRequest{node});
}

Result<StatfsReply> Client::statfs(NodeId node) {
    return Call(*impl_, Op::kStatfs).run_for<StatfsReply>(NodeRequest{node});
}

Status Client::fsync(NodeId node, bool data_only) {
    return Call(*impl_, Op::kFsync).run_for_nothing(FsyncRequest{node, data_only ? 1u : 0u, 0});
}

Result<DirChunk> Client::read_dir(NodeId node, uint64_t cookie, bool want_attributes) {
    Call call(*impl_, Op::kReadDir);
    ReadDirRequest request;
    request.node = node;
    request.cookie = cookie;
    request.want_attributes = want_attributes ? 1 : 0;
    auto answer = TRY(call.run(request));
    const auto reply = answer.body.take<ReadDirReply>();
    DirChunk chunk;
    chunk.end = reply.end != 0;
    chunk.entries.reserve(std::min<size_t>(reply.count, kMaxMessage / sizeof(DirEntryHead)));
    for (uint32_t i = 0; i < reply.count && !answer.body.failed(); i++) {
        const auto head = answer.body.take<DirEntryHead>();
        DirEntry entry;
        entry.ino = head.ino;
        entry.cookie = head.cookie;
        entry.type = head.type;
        entry.has_attributes = head.has_attributes != 0;
        if (entry.has_attributes) {
            entry.attributes = answer.body.take<Attributes>();
        }
        entry.name = answer.body.padded_bytes(head.name_length);
        if (check_name(entry.name) != 0) {
            return impl_->die("a directory entry's name makes no sense");
        }
        chunk.entries.push_back(std::move(entry));
    }
    TRY(call.finish(answer));
    if (chunk.entries.empty() && !chunk.end) {
        return impl_->die("a directory goes on with nothing");
    }
    return chunk;
}

// ---------------------------------------------------------------- names

Result<CreatedNode> Client::create(NodeId parent, std::string_view name, uint32_t flags,
                                   NewOwner owner) {
    Call call(*impl_, Op::kCreate);
    auto request = make_request(parent, name, owner);
    request.flags = flags;
    auto answer = TRY(call.run(request, name));
    CreatedNode created;
    created.node = answer.body.take<NodeEntry>();
    created.file = std::move(answer.fd);
    TRY(call.finish(answer));
    if (!created.file.valid()) {
        return impl_->die("a create came without a descriptor");
    }
    return created;
}

Result<Node> Client::mkdir(NodeId parent, std::string_view name, NewOwner owner) {
    return Call(*impl_, Op::kMkdir).run_for<NodeEntry>(make_request(parent, name, owner), name);
}

Result<Node> Client::mknod(NodeId parent, std::string_view name, NewOwner owner,
                           uint32_t rdev_major, uint32_t rdev_minor) {
    auto request = make_request(parent, name, owner);
    request.rdev_major = rdev_major;
    request.rdev_minor = rdev_minor;
    return Call(*impl_, Op::kMknod).run_for<NodeEntry>(request, name);
}

Result<Node> Client::symlink(NodeId parent, std::string_view name, std::string_view target,
                             NewOwner owner) {
    auto request = make_request(parent, name, owner);
    request.target_length = static_cast<uint32_t>(target.size());
    return Call(*impl_, Op::kSymlink).run_for<NodeEntry>(request, name, target);
}

Result<Node> Client::link(NodeId node, NodeId new_parent, std::string_view new_name) {
    LinkRequest request;
    request.node = node;
    request.new_parent = new_parent;
    request.name_length = static_cast<uint32_t>(new_name.size());
    return Call(*impl_, Op::kLink).run_for<NodeEntry>(request, new_name);
}

Status Client::unlink(NodeId parent, std::string_view name) {
    return Call(*impl_, Op::kUnlink).run_for_nothing(unlink_request(parent, name, false), name);
}

Status Client::rmdir(NodeId parent, std::string_view name) {
    return Call(*impl_, Op::kUnlink).run_for_nothing(unlink_request(parent, name, true), name);
}

Status Client::rename(NodeId old_parent, std::string_view old_name, NodeId new_parent,
                      std::string_view new_name, uint32_t flags) {
    RenameRequest request;
    request.old_parent = old_parent;
    request.new_parent = new_parent;
    request.flags = flags;
    request.old_length = static_cast<uint32_t>(old_name.size());
    request.new_length = static_cast<uint32_t>(new_name.size());
    return Call(*impl_, Op::kRename).run_for_nothing(request, old_name, new_name);
}

// ---------------------------------------------------------------- extended attributes and the rest

Result<std::string> Client::get_xattr(NodeId node, std::string_view name) {
    return Call(*impl_, Op::kGetXattr).run_for_bytes(xattr_request(node, name), name);
}

Status Client::set_xattr(NodeId node, std::string_view name, std::string_view value,
                         uint32_t flags) {
    if (value.size() > kMaxXattrValue) {
        return Errno(E2BIG);
    }
    auto request = xattr_request(node, name);
    request.flags = flags;
    request.value_length = static_cast<uint32_t>(value.size());
    return Call(*impl_, Op::kSetXattr).run_for_nothing(request, name, value);
}

Result<std::string> Client::list_xattr(NodeId node) {
    return Call(*impl_, Op::kListXattr).run_for_bytes(xattr_request(node, ""));
}

Status Client::remove_xattr(NodeId node, std::string_view name) {
    return Call(*impl_, Op::kRemoveXattr).run_for_nothing(xattr_request(node, name), name);
}

Result<ScopedFd> Client::connect_socket(NodeId node, int type) {
    Call call(*impl_, Op::kConnect);
    auto answer = TRY(call.run(ConnectRequest{node, static_cast<uint32_t>(type), 0}));
    TRY(call.finish(answer));
    if (!answer.fd.valid()) {
        return impl_->die("a connect came without a descriptor");
    }
    return std::move(answer.fd);
}

void Client::close(const CloseItem* items, size_t count) {
    constexpr size_t kAtOnce =
        (kMaxMessage - sizeof(Header) - sizeof(CloseRequest)) / sizeof *items;
    while (count > 0) {
        const size_t n = std::min(count, kAtOnce);
        Call call(*impl_, Op::kClose);
        Writer out(call.buffer());
        CHECK(out.put(CloseRequest{static_cast<uint32_t>(n), 0}));
        for (size_t i = 0; i < n; i++) {
            CHECK(out.put(items[i]));
        }
        call.post(out);
        items += n;
        count -= n;
    }
}

}  // namespace moat::gofer
