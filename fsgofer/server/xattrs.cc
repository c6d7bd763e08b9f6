// Extended attributes. The calls that take a descriptor refuse O_PATH ones, and opening a file for
// use is impossible for symlinks and unwelcome for fifos and devices. So we go to the directory and
// use the calls that take a name and do not follow it.

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fsgofer/server/host.h"
#include "fsgofer/server/server.h"

namespace moat::gofer {

namespace {

Status check_xattr_name(const std::string& name) {
    if (name.empty() || name.find('\0') != std::string::npos) {
        return Errno(EINVAL);
    }
    return name.size() > kMaxName ? Status(Errno(ERANGE)) : Status();
}

}  // namespace

Result<const char*> Server::enter_place(Index node) {
    const auto place = TRY(nodes_.place(node));
    // The name must still mean this node's file; should it be replaced right now, the other file is
    // one that the sentry may reach as well.
    if (!nodes_.same_file(node, TRY(attributes_of(place.directory, place.name)))) {
        return Errno(ESTALE);
    }
    TRY(host_result(::fchdir(place.directory)));
    return place.name;
}

Status Server::get_xattr(Reader& in, Writer& out) {
    const auto request = in.take<XattrRequest>();
    const std::string name(in.bytes(request.name_length));
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    TRY(check_xattr_name(name));
    const char* file = TRY(enter_place(node));
    // A value that does not fit a message: ERANGE, of the host.
    const ssize_t n =
        TRY(host_result(::lgetxattr(file, name.c_str(), out.free_space(), out.room())));
    out.advance(static_cast<size_t>(n));
    return {};
}

Status Server::list_xattr(Reader& in, Writer& out) {
    const auto request = in.take<XattrRequest>();
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    const char* file = TRY(enter_place(node));
    const ssize_t n = TRY(host_result(::llistxattr(file, out.free_space(), out.room())));
    out.advance(static_cast<size_t>(n));
    return {};
}

Status Server::set_xattr(Reader& in) {
    const auto request = in.take<XattrRequest>();
    const std::string name(in.bytes(request.name_length));
    const auto value = in.bytes(request.value_length);
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    TRY(check_xattr_name(name));
    if ((request.flags & ~static_cast<uint32_t>(XATTR_CREATE | XATTR_REPLACE)) != 0) {
        return Errno(EINVAL);
    }
    TRY(check_writable(node));
    const char* file = TRY(enter_place(node));
    TRY(host_result(::lsetxattr(file, name.c_str(), value.data(), value.size(),
                                static_cast<int>(request.flags))));
    return {};
}

Status Server::remove_xattr(Reader& in) {
    const auto request = in.take<XattrRequest>();
    const std::string name(in.bytes(request.name_length));
    TRY(in.finish());
    const Index node = TRY(nodes_.find(request.node));
    TRY(check_xattr_name(name));
    TRY(check_writable(node));
    const char* file = TRY(enter_place(node));
    TRY(host_result(::lremovexattr(file, name.c_str())));
    return {};
}

}  // namespace moat::gofer
