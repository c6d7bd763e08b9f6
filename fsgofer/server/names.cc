// kMkdir, kMknod, kSymlink, kLink, kUnlink, kRename: names in directories.

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsgofer/server/host.h"
#include "fsgofer/server/server.h"

namespace moat::gofer {

Result<Server::Target> Server::target(NodeId parent, std::string_view name) {
    const Index node = TRY(nodes_.find(parent));
    if (!S_ISDIR(nodes_.mode_of(node))) {
        return Errno(ENOTDIR);
    }
    if (const int error = check_name(name)) {
        return Errno(error);
    }
    TRY(check_writable(node));
    return Target{node, TRY(nodes_.descriptor(node)), std::string(name)};
}

Status Server::finish_new(const Target& made, ScopedFd opened, const MakeRequest& request,
                          Writer& out) {
    if (!opened.valid()) {
        opened = TRY(open_beneath(made.directory, made.name.c_str(), O_PATH | O_NOFOLLOW));
    }
    const int fd = opened.get();
    auto attributes = TRY(attributes_of(fd, ""));
    bool changed = false;
    if (attributes.uid != request.uid || attributes.gid != request.gid) {
        TRY(host_result(
            ::fchownat(fd, "", request.uid, request.gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)));
        changed = true;
    }
    const uint32_t mode = request.mode & 07777;
    if (!S_ISLNK(attributes.mode) &&
        ((attributes.mode & 07777) != mode || (changed && (mode & (S_ISUID | S_ISGID)) != 0))) {
        const auto done = chmod_fd(fd, mode);
        if (!done.ok() && done.error() == ENOSYS && S_ISDIR(attributes.mode)) {
            const auto directory =
                TRY(open_beneath(made.directory, made.name.c_str(), O_RDONLY | O_DIRECTORY));
            TRY(host_result(::fchmod(directory.get(), mode)));
        } else {
            TRY(Status(done));
        }
        changed = true;
    }
    if (changed) {
        attributes = TRY(attributes_of(fd, ""));
    }
    const Index node = TRY(nodes_.see(made.parent, made.name, attributes));
    TRY(put_node(out, node, attributes));
    nodes_.keep_descriptor(node, std::move(opened));
    return {};
}

Status Server::mkdir(Reader& in, Writer& out) {
    const auto request = in.take<MakeRequest>();
    const auto name = in.bytes(request.name_length);
    TRY(in.finish());
    const auto made = TRY(target(request.parent, name));
    if ((request.mode & ~07777u) != 0) {
        return Errno(EINVAL);
    }
    TRY(host_result(::mkdirat(made.directory, made.name.c_str(), request.mode)));
    const auto finished = finish_new(made, ScopedFd(), request, out);
    if (!finished.ok()) {
        ::unlinkat(made.directory, made.name.c_str(), AT_REMOVEDIR);
    }
    return finished;
}

Status Server::mknod(Reader& in, Writer& out) {
    const auto request = in.take<MakeRequest>();
    const auto name = in.bytes(request.name_length);
    TRY(in.finish());
    const auto made = TRY(target(request.parent, name));
    switch (request.mode & S_IFMT) {
        case S_IFREG:
        case S_IFIFO:
        case S_IFSOCK:
            break;
        case S_IFCHR:
        case S_IFBLK:
            // The host would refuse most of them for want of CAP_MKNOD; we refuse all, whiteouts
            // (0:0) of an overlay included.
            return Errno(EPERM);
        default:
            return Errno(EINVAL);
    }
    if ((request.mode & ~(07777u | S_IFMT)) != 0) {
        return Errno(EINVAL);
    }
    TRY(host_result(::mknodat(made.directory, made.name.c_str(), request.mode, 0)));
    const auto finished = finish_new(made, ScopedFd(), request, out);
    if (!finished.ok()) {
        ::unlinkat(made.directory, made.name.c_str(), 0);
    }
    return finished;
}

Status Server::symlink(Reader& in, Writer& out) {
    const auto request = in.take<MakeRequest>();
    const auto name = in.bytes(request.name_length);
    const std::string to(in.bytes(request.target_length));
    TRY(in.finish());
    const auto made = TRY(target(request.parent, name));
    if (to.find('\0') != std::string::npos) {
        return Errno(EINVAL);
    }
    TRY(host_result(::symlinkat(to.c_str(), made.directory, made.name.c_str())));
    const auto finished = finish_new(made, ScopedFd(), request, out);
    if (!finished.ok()) {
        ::unlinkat(made.directory, made.name.c_str(), 0);
    }
    return finished;
}

Status Server::link(Reader& in, Writer& out) {
    const auto request = in.take<LinkRequest>();
    const auto name = in.bytes(request.name_length);
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    const auto made = TRY(target(request.new_parent, name));
    if (nodes_.mount_of(node) != nodes_.mount_of(made.parent)) {
        return Errno(EXDEV);
    }
    // AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH, which we have.
    const int file = TRY(nodes_.descriptor(node));
    TRY(host_result(::linkat(file, "", made.directory, made.name.c_str(), AT_EMPTY_PATH)));
    const auto attributes = TRY(attributes_of(file, ""));
    return put_node(out, TRY(nodes_.see(made.parent, made.name, attributes)), attributes);
}

Status Server::unlink(Reader& in) {
    const auto request = in.take<UnlinkRequest>();
    const auto name = in.bytes(request.name_length);
    TRY(in.finish());
    const auto gone = TRY(target(request.parent, name));
    const Index node = nodes_.lookup(gone.parent, name);
    if (node != NodeTable::kNone) {
        // While its descriptor is open it can still be looked at: a directory that is somebody's
        // current one, a file that is open.
        (void)nodes_.descriptor(node).ok();
    }
    TRY(host_result(
        ::unlinkat(gone.directory, gone.name.c_str(), request.directory != 0 ? AT_REMOVEDIR : 0)));
    nodes_.unlinked(gone.parent, name);
    return {};
}

Status Server::rename(Reader& in) {
    const auto request = in.take<RenameRequest>();
    const auto old_name = in.bytes(request.old_length);
    const auto new_name = in.bytes(request.new_length);
    TRY(in.finish());
    const auto from = TRY(target(request.old_parent, old_name));
    const auto to = TRY(target(request.new_parent, new_name));
    if (nodes_.mount_of(from.parent) != nodes_.mount_of(to.parent)) {
        return Errno(EXDEV);
    }
    if (request.flags != 0 && request.flags != RENAME_NOREPLACE &&
        request.flags != RENAME_EXCHANGE) {
        return Errno(EINVAL);
    }
    const Index replaced = nodes_.lookup(to.parent, new_name);
    if (replaced != NodeTable::kNone && request.flags == 0) {
        (void)nodes_.descriptor(replaced).ok();  // as for unlink
    }
    // glibc's renameat2() makes a renameat of one without flags, which our filter does not know.
    TRY(host_result(::syscall(SYS_renameat2, from.directory, from.name.c_str(), to.directory,
                              to.name.c_str(), request.flags)));
    if (request.flags == RENAME_EXCHANGE) {
        nodes_.exchanged(from.parent, old_name, to.parent, new_name);
    } else {
        nodes_.renamed(from.parent, old_name, to.parent, new_name);
    }
    return {};
}

}  // namespace moat::gofer
