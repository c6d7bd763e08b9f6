#include "fsgofer/server/server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/vfs.h>

#include "fsgofer/server/host.h"

namespace moat::gofer {

Server::Server(size_t max_descriptors)
    : nodes_(max_descriptors), request_(new char[kMaxMessage]), answer_(new char[kMaxMessage]) {}

Server::~Server() = default;

Status Server::add_mount(const ServedMount& mount) {
    MountState state;
    state.mount = mount;
    state.root =
        TRY(nodes_.add_root(static_cast<uint32_t>(mounts_.size()), mount.directory, mount.name));
    struct statfs s;
    if (::fstatfs(TRY(nodes_.descriptor(state.root)), &s) != 0) {
        return Errno(errno);
    }
    state.fs_type = static_cast<uint64_t>(s.f_type);
    mounts_.push_back(std::move(state));
    return {};
}

// ---------------------------------------------------------------- channels

Status Server::serve(ScopedFd channel) {
    epoll_.reset(TRY(host_result(::epoll_create1(EPOLL_CLOEXEC))));
    const auto watch = [&](int fd) {
        epoll_event event{EPOLLIN, {.fd = fd}};
        return host_result(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event));
    };
    channels_.push_back(std::move(channel));
    TRY(watch(channels_[watched_++].get()));
    while (!channels_.empty()) {
        epoll_event events[kMaxChannels];
        if (channels_.size() == 1) {
            // The common case saves a host call: wait in recvmsg itself.
            const int only = channels_[0].get();
            if (!polling_.poll([&] { return serve_one(only, MSG_DONTWAIT); })) {
                serve_one(only, 0);
            }
        } else {
            int ready = 0;
            const auto wait = [&](int timeout) {
                ready = ::epoll_wait(epoll_.get(), events, kMaxChannels, timeout);
                return ready != 0;
            };
            if (!polling_.poll([&] { return wait(0); })) {
                wait(-1);
            }
            if (ready < 0 && errno != EINTR) {
                return Errno(errno);
            }
            for (int i = 0; i < ready; i++) {
                // Not blocking: a channel closed earlier in this round may have left its number to
                // a new, silent one.
                serve_one(events[i].data.fd, MSG_DONTWAIT);
            }
        }
        for (; watched_ < channels_.size(); watched_++) {
            TRY(watch(channels_[watched_].get()));
        }
    }
    return {};
}

bool Server::serve_one(int channel, int flags) {
    const auto received = receive_packet(channel, request_.get(), kMaxMessage, nullptr, flags);
    if (!received.ok() && received.error() == EAGAIN) {
        return false;
    }
    bool alive = false;
    if (received.ok() && received.value() > 0) {
        const auto answer = handle(request_.get(), received.value());
        alive = answer.ok() &&
                (answer->packet.empty() || send_packet(channel, answer->packet.data(),
                                                       answer->packet.size(), answer->fd.get())
                                               .ok());
    }
    if (!alive) {
        // Closing takes it out of the epoll set.
        const size_t before = channels_.size();
        for (size_t i = 0; i < before; i++) {
            if (channels_[i].get() == channel) {
                channels_.erase(channels_.begin() + static_cast<ptrdiff_t>(i));
                watched_ -= i < watched_ ? 1 : 0;
                break;
            }
        }
    }
    return true;
}

Status Server::open_channel(ScopedFd& donated) {
    if (channels_.size() >= kMaxChannels) {
        return Errno(EMFILE);
    }
    int ends[2];
    TRY(host_result(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)));
    channels_.emplace_back(ends[0]);
    donated.reset(ends[1]);
    return {};
}

Status Server::close_nodes(Reader& in) {
    const auto request = in.take<CloseRequest>();
    // The count is checked by division: it is the sentry's.
    if (in.left() / sizeof(CloseItem) < request.count) {
        in.bytes(in.left() + 1);
        return in.finish();
    }
    for (uint32_t i = 0; i < request.count; i++) {
        const auto item = in.take<CloseItem>();
        const auto node = nodes_.find(item.node);
        if (node.ok()) {
            nodes_.release(node.value(), item.holds);
        }
    }
    return in.finish();
}

// ---------------------------------------------------------------- requests

Result<Server::Answer> Server::handle(const char* request, size_t size) {
    Reader in(request, size);
    Header header = in.take<Header>();
    if (in.failed() || header.length != size) {
        return Errno(EPROTO);
    }
    Writer out(answer_.get());
    Answer answer;
    const Status status = dispatch(header.op, in, out, answer.fd);
    if (in.failed()) {
        return Errno(EPROTO);
    }
    if (header.op == Op::kClose) {
        return answer;
    }
    header.error = status.ok() ? 0 : status.error().value();
    if (header.error != 0) {
        out.reset();
        answer.fd.reset();
    }
    header.fds = answer.fd.valid() ? 1 : 0;
    out.set_header(header);
    answer.packet = {answer_.get(), out.size()};
    return answer;
}

Status Server::dispatch(Op op, Reader& in, Writer& out, ScopedFd& donated) {
    switch (op) {
        case Op::kHello:
            return hello(in, out);
        case Op::kOpenChannel:
            TRY(in.finish());
            return open_channel(donated);
        case Op::kWalk:
            return walk(in, out, donated);
        case Op::kStat:
            return stat(in, out);
        case Op::kSetAttributes:
            return set_attributes(in, out);
        case Op::kOpen:
            return open(in, out, donated);
        case Op::kCreate:
            return create(in, out, donated);
        case Op::kMkdir:
            return mkdir(in, out);
        case Op::kMknod:
            return mknod(in, out);
        case Op::kSymlink:
            return symlink(in, out);
        case Op::kLink:
            return link(in, out);
        case Op::kUnlink:
            return unlink(in);
        case Op::kRename:
            return rename(in);
        case Op::kReadLink:
            return read_link(in, out);
        case Op::kReadDir:
            return read_dir(in, out);
        case Op::kStatfs:
            return statfs(in, out);
        case Op::kGetXattr:
            return get_xattr(in, out);
        case Op::kSetXattr:
            return set_xattr(in);
        case Op::kListXattr:
            return list_xattr(in, out);
        case Op::kRemoveXattr:
            return remove_xattr(in);
        case Op::kFsync:
            return fsync(in);
        case Op::kConnect:
            return connect(in, donated);
        case Op::kClose:
            return close_nodes(in);
        case Op::kEnd:
            break;
    }
    in.bytes(in.left() + 1);  // an unknown operation breaks the framing
    return in.finish();
}

Status Server::check_writable(Index node) const {
    if ((mount_of(node).mount.flags & kMountReadOnly) != 0) {
        return Errno(EROFS);
    }
    return {};
}

Status Server::put_node(Writer& out, Index node, const Attributes& attributes) {
    NodeEntry entry;
    entry.id = nodes_.id_of(node);
    entry.attributes = attributes;
    if (!out.put(entry)) {
        return Errno(EMSGSIZE);
    }
    nodes_.hold(node);
    return {};
}

}  // namespace moat::gofer
