// kHello, kWalk, kStat, kReadLink: finding things.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fsgofer/server/host.h"
#include "fsgofer/server/server.h"

namespace moat::gofer {

Status Server::hello(Reader& in, Writer& out) {
    const auto request = in.take<HelloRequest>();
    TRY(in.finish());
    if (request.magic != kHelloMagic || request.version != kProtocolVersion) {
        return Errno(EPROTONOSUPPORT);
    }
    HelloReply reply;
    reply.mounts = static_cast<uint32_t>(mounts_.size());
    const size_t at = out.reserve<HelloReply>();
    for (size_t i = request.first_mount; i < mounts_.size(); i++) {
        const MountState& state = mounts_[i];
        MountEntry entry;
        entry.root.id = nodes_.id_of(state.root);
        entry.root.attributes = TRY(attributes_of(TRY(nodes_.descriptor(state.root)), ""));
        entry.fs_type = state.fs_type;
        entry.flags = state.mount.flags;
        entry.destination_length = static_cast<uint32_t>(state.mount.destination.size());
        if (out.room() < sizeof entry + padded(state.mount.destination.size())) {
            break;
        }
        if (!out.put(entry) || !out.put_padded(state.mount.destination)) {
            return Errno(EMSGSIZE);
        }
        reply.count++;
    }
    out.fill(at, reply);
    return {};
}

Status Server::walk(Reader& in, Writer& out, ScopedFd& donated) {
    const auto request = in.take<WalkRequest>();
    std::string_view path = in.bytes(request.path_length);
    TRY(in.finish());
    if (const int error = check_path(path)) {
        return Errno(error);
    }
    Index node = TRY(nodes_.find(request.base));
    if (!S_ISDIR(nodes_.mode_of(node))) {
        return Errno(ENOTDIR);
    }
    int directory = TRY(nodes_.descriptor(node));

    WalkReply reply;
    const size_t at = out.reserve<WalkReply>();
    // A symlink's target may follow the last entry, so that much room is kept.
    constexpr size_t kRoom = sizeof(NodeEntry) + PATH_MAX;
    const auto stop_with = [&](int error) {
        reply.stop = WalkStop::kError;
        reply.error = error;
    };
    while (true) {
        const size_t slash = path.find('/');
        const bool last = slash == std::string_view::npos;
        const std::string name(path.substr(0, slash));
        if (out.room() < kRoom) {
            reply.stop = WalkStop::kMore;
            break;
        }

        // One statx is enough at the path's end and where the descriptor is at hand. Elsewhere the
        // descriptor comes first: what it refers to cannot be exchanged between the two calls.
        Index child = nodes_.lookup(node, name);
        ScopedFd opened;
        Result<Attributes> attributes = Errno(ENOENT);
        if (last || (child != NodeTable::kNone && nodes_.has_descriptor(child))) {
            attributes = attributes_of(directory, name.c_str());
        }
        const bool known =
            attributes.ok() && child != NodeTable::kNone && nodes_.same_file(child, *attributes);
        if (!last && !(known && nodes_.has_descriptor(child))) {
            auto fd = open_beneath(directory, name.c_str(), O_PATH | O_NOFOLLOW);
            if (!fd.ok()) {
                stop_with(fd.error().value());
                break;
            }
            opened = std::move(fd).value();
            attributes = attributes_of(opened.get(), "");
        }
        if (!attributes.ok()) {
            stop_with(attributes.error().value());
            break;
        }
        const auto seen = nodes_.see(node, name, *attributes);
        if (!seen.ok()) {
            stop_with(seen.error().value());
            break;
        }
        child = seen.value();
        TRY(put_node(out, child, *attributes));
        reply.count++;
        if (opened.valid()) {
            nodes_.keep_descriptor(child, std::move(opened));
        }
        node = child;

        if (S_ISLNK(attributes->mode)) {
            // By descriptor, so that target and attributes are of the same link.
            const auto link = nodes_.descriptor(node);
            const ssize_t n =
                link.ok() ? ::readlinkat(link.value(), "", out.free_space(), out.room()) : -1;
            if (n < 0) {
                stop_with(link.ok() ? errno : link.error().value());
                break;
            }
            out.advance(static_cast<size_t>(n));
            reply.target_length = static_cast<uint32_t>(n);
            reply.stop = WalkStop::kSymlink;
            break;
        }
        if (last) {
            reply.stop = WalkStop::kComplete;
            break;
        }
        if (!S_ISDIR(attributes->mode)) {
            reply.stop = WalkStop::kNotDirectory;
            break;
        }
        const auto next = nodes_.descriptor(node);
        if (!next.ok()) {
            stop_with(next.error().value());
            break;
        }
        directory = next.value();
        path.remove_prefix(slash + 1);
    }

    if (reply.stop == WalkStop::kComplete && request.open_flags != kNoOpen) {
        if (!S_ISREG(nodes_.mode_of(node))) {
            reply.open_error = EAGAIN;
        } else {
            auto file = donate(node, request.open_flags, nullptr);
            if (file.ok()) {
                donated = std::move(file).value();
            } else {
                reply.open_error = file.error().value();
            }
        }
    }
    out.fill(at, reply);
    return {};
}

Status Server::stat(Reader& in, Writer& out) {
    const auto request = in.take<NodeRequest>();
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    const auto attributes = TRY(attributes_of(TRY(nodes_.descriptor(node)), ""));
    return out.put(attributes) ? Status() : Status(Errno(EMSGSIZE));
}

Status Server::read_link(Reader& in, Writer& out) {
    const auto request = in.take<NodeRequest>();
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    if (!S_ISLNK(nodes_.mode_of(node))) {
        return Errno(EINVAL);
    }
    const int link = TRY(nodes_.descriptor(node));
    const ssize_t n = TRY(host_result(::readlinkat(link, "", out.free_space(), out.room())));
    out.advance(static_cast<size_t>(n));
    return {};
}

}  // namespace moat::gofer
