// kOpen, kCreate, kSetAttributes, kStatfs, kFsync, kConnect: one file at a time.

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdio>

#include "fsgofer/server/host.h"
#include "fsgofer/server/server.h"

namespace moat::gofer {

namespace {

constexpr uint32_t kOpenFlags =
    O_ACCMODE | O_TRUNC | O_APPEND | O_DIRECT | O_SYNC | O_DSYNC | O_NOATIME | O_NONBLOCK;

Status check_open_flags(uint32_t flags) {
    const uint32_t access = flags & O_ACCMODE;
    if ((flags & ~kOpenFlags) != 0 || access == O_ACCMODE ||
        ((flags & O_TRUNC) != 0 && access == O_RDONLY)) {
        return Errno(EINVAL);
    }
    return {};
}

}  // namespace

Result<ScopedFd> Server::open_node(Index node, uint64_t flags, Attributes* attributes) {
    const auto place = TRY(nodes_.place(node));
    // O_NONBLOCK: should a fifo or a device have taken the name's place, nobody waits for it.
    // O_NOFOLLOW is implied, O_NOCTTY would matter for a terminal.
    auto fd = open_beneath(place.directory, place.name, flags | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
    if (!fd.ok()) {
        const int error = fd.error().value();
        return error == ENOENT || error == ELOOP ? Errno(ESTALE) : fd.error();
    }
    const auto found = TRY(attributes_of(fd->get(), ""));
    if (!nodes_.same_file(node, found)) {
        return Errno(ESTALE);
    }
    if (attributes != nullptr) {
        *attributes = found;
    }
    return std::move(fd).value();
}

Result<ScopedFd> Server::donate(Index node, uint32_t flags, Attributes* attributes) {
    TRY(check_open_flags(flags));
    const uint32_t mount_flags = mount_of(node).mount.flags;
    const bool writes = (flags & O_ACCMODE) != O_RDONLY;
    switch (nodes_.mode_of(node) & S_IFMT) {
        case S_IFREG: {
            if (writes) {
                TRY(check_writable(node));
            }
            // Truncated only once we know that it is the right file.
            Attributes found;
            auto fd = TRY(open_node(node, flags & ~static_cast<uint32_t>(O_TRUNC), &found));
            if ((flags & O_TRUNC) != 0) {
                TRY(host_result(::ftruncate(fd.get(), 0)));
                found = TRY(attributes_of(fd.get(), ""));
            }
            if (attributes != nullptr) {
                *attributes = found;
            }
            return fd;
        }
        case S_IFDIR:
            return Errno(EISDIR);
        case S_IFLNK:
            return Errno(ELOOP);
        case S_IFIFO:
            if ((mount_flags & kMountFifos) == 0) {
                return Errno(ENXIO);
            }
            break;
        case S_IFCHR:
        case S_IFBLK:
            if ((mount_flags & kMountDevices) == 0) {
                return Errno(ENXIO);
            }
            break;
        default:
            return Errno(ENXIO);
    }
    auto fd = TRY(open_node(node, flags & ~static_cast<uint32_t>(O_TRUNC), attributes));
    if ((flags & O_NONBLOCK) == 0) {
        const int status = TRY(host_result(::fcntl(fd.get(), F_GETFL)));
        TRY(host_result(::fcntl(fd.get(), F_SETFL, status & ~O_NONBLOCK)));
    }
    return fd;
}

Status Server::open(Reader& in, Writer& out, ScopedFd& donated) {
    const auto request = in.take<OpenRequest>();
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    Attributes attributes;
    donated = TRY(donate(node, request.flags, &attributes));
    return out.put(attributes) ? Status() : Status(Errno(EMSGSIZE));
}

Status Server::create(Reader& in, Writer& out, ScopedFd& donated) {
    const auto request = in.take<MakeRequest>();
    const auto name = in.bytes(request.name_length);
    TRY(in.finish());
    TRY(check_open_flags(request.flags));
    const auto made = TRY(target(request.parent, name));
    if ((request.mode & ~07777u) != 0) {
        return Errno(EINVAL);
    }
    const uint32_t flags = request.flags & ~static_cast<uint32_t>(O_TRUNC);
    donated = TRY(open_beneath(made.directory, made.name.c_str(),
                               flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY, request.mode));
    const int fd = donated.get();
    const auto finish = [&]() -> Result<Attributes> {
        auto attributes = TRY(attributes_of(fd, ""));
        if (attributes.uid == request.uid && attributes.gid == request.gid &&
            (attributes.mode & 07777) == request.mode) {
            return attributes;
        }
        // The mode last: a change of owner clears the set-id bits.
        TRY(host_result(::fchown(fd, request.uid, request.gid)));
        TRY(host_result(::fchmod(fd, request.mode)));
        return attributes_of(fd, "");
    };
    const auto attributes = finish();
    if (!attributes.ok()) {
        ::unlinkat(made.directory, made.name.c_str(), 0);
        return attributes.error();
    }
    return put_node(out, TRY(nodes_.see(made.parent, made.name, *attributes)), *attributes);
}

Status Server::set_attributes(Reader& in, Writer& out) {
    const auto request = in.take<SetAttributesRequest>();
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    const uint32_t mask = request.mask;
    const auto both = [&](uint32_t a, uint32_t b) { return (mask & a) != 0 && (mask & b) != 0; };
    if ((mask & ~kSetAll) != 0 || both(kSetAccessTime, kSetAccessTimeNow) ||
        both(kSetModifyTime, kSetModifyTimeNow) ||
        ((mask & kSetMode) != 0 && (request.mode & ~07777u) != 0) ||
        ((mask & kSetSize) != 0 && request.size > INT64_MAX)) {
        return Errno(EINVAL);
    }
    TRY(check_writable(node));
    const int fd = TRY(nodes_.descriptor(node));
    const uint32_t type = nodes_.mode_of(node) & S_IFMT;

    if ((mask & (kSetUid | kSetGid)) != 0) {
        const uid_t uid = (mask & kSetUid) != 0 ? request.uid : static_cast<uid_t>(-1);
        const gid_t gid = (mask & kSetGid) != 0 ? request.gid : static_cast<gid_t>(-1);
        TRY(host_result(::fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)));
    }
    if ((mask & kSetMode) != 0) {
        if (type == S_IFLNK) {
            return Errno(EOPNOTSUPP);
        }
        const auto changed = chmod_fd(fd, request.mode);
        if (!changed.ok() && changed.error() == ENOSYS && (type == S_IFREG || type == S_IFDIR)) {
            // Before Linux 6.6 only a descriptor that is open for use can be changed.
            const auto opened = TRY(open_node(node, O_RDONLY));
            TRY(host_result(::fchmod(opened.get(), request.mode)));
        } else {
            TRY(Status(changed));
        }
    }
    if ((mask & kSetSize) != 0) {
        if (type != S_IFREG) {
            return Errno(type == S_IFDIR ? EISDIR : EINVAL);
        }
        const auto opened = TRY(open_node(node, O_WRONLY));
        TRY(host_result(::ftruncate(opened.get(), static_cast<off_t>(request.size))));
    }
    constexpr uint32_t kTimes =
        kSetAccessTime | kSetModifyTime | kSetAccessTimeNow | kSetModifyTimeNow;
    if ((mask & kTimes) != 0) {
        const auto time = [&](uint32_t value, uint32_t now, const Timestamp& t) {
            timespec ts{};
            ts.tv_nsec = UTIME_OMIT;
            if ((mask & now) != 0) {
                ts.tv_nsec = UTIME_NOW;
            } else if ((mask & value) != 0) {
                ts.tv_sec = t.seconds;
                // Linux would take two values beyond the range as UTIME_NOW and UTIME_OMIT.
                ts.tv_nsec = t.nanoseconds < 1'000'000'000 ? t.nanoseconds : -1;
            }
            return ts;
        };
        const timespec times[2] = {time(kSetAccessTime, kSetAccessTimeNow, request.access_time),
                                   time(kSetModifyTime, kSetModifyTimeNow, request.modify_time)};
        TRY(host_result(::utimensat(fd, "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)));
    }
    const auto attributes = TRY(attributes_of(fd, ""));
    return out.put(attributes) ? Status() : Status(Errno(EMSGSIZE));
}

Status Server::statfs(Reader& in, Writer& out) {
    const auto request = in.take<NodeRequest>();
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    struct statfs s;
    TRY(host_result(::fstatfs(TRY(nodes_.descriptor(node)), &s)));
    StatfsReply reply;
    reply.type = static_cast<uint64_t>(s.f_type);
    reply.block_size = static_cast<uint64_t>(s.f_bsize);
    reply.fragment_size = static_cast<uint64_t>(s.f_frsize);
    reply.blocks = s.f_blocks;
    reply.blocks_free = s.f_bfree;
    reply.blocks_available = s.f_bavail;
    reply.files = s.f_files;
    reply.files_free = s.f_ffree;
    reply.name_length = static_cast<uint64_t>(s.f_namelen);
    reply.flags = static_cast<uint64_t>(s.f_flags);
    return out.put(reply) ? Status() : Status(Errno(EMSGSIZE));
}

Status Server::fsync(Reader& in) {
    const auto request = in.take<FsyncRequest>();
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    const uint32_t type = nodes_.mode_of(node) & S_IFMT;
    if (type != S_IFREG && type != S_IFDIR) {
        return Errno(EINVAL);
    }
    const auto fd = TRY(open_node(node, O_RDONLY));
    TRY(host_result(request.data_only != 0 ? ::fdatasync(fd.get()) : ::fsync(fd.get())));
    return {};
}

Status Server::connect(Reader& in, ScopedFd& donated) {
    const auto request = in.take<ConnectRequest>();
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    if ((mount_of(node).mount.flags & kMountConnect) == 0) {
        return Errno(EPERM);
    }
    if (request.type != SOCK_STREAM && request.type != SOCK_DGRAM &&
        request.type != SOCK_SEQPACKET) {
        return Errno(EINVAL);
    }
    if (!S_ISSOCK(nodes_.mode_of(node))) {
        return Errno(ECONNREFUSED);
    }
    // connect(2) only takes a path, and follows a symlink that might just have replaced the socket:
    // that would lead to another socket of this container's mounts, as nothing else can be named
    // from here.
    const char* name = TRY(enter_place(node));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const int length = snprintf(address.sun_path, sizeof address.sun_path, "./%s", name);
    if (length >= static_cast<int>(sizeof address.sun_path)) {
        return Errno(ENAMETOOLONG);
    }
    ScopedFd socket(TRY(host_result(
        ::socket(AF_UNIX, static_cast<int>(request.type) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0))));
    // Not blocking: a full backlog is EAGAIN for the guest, not a stop of all its file system
    // calls.
    TRY(host_result(
        ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address)));
    donated = std::move(socket);
    return {};
}

}  // namespace moat::gofer
