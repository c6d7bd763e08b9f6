#pragma once

#include <string>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/path.h"
#include "kernel/net/socket_address.h"

namespace moat::kernel {

class Task;
class UnixEndpoint;

/// The name in a unix address: a path up to its NUL, or an abstract name with its leading NUL;
/// empty for an address that is only a family. EINVAL.
Result<std::string> unix_name(const SocketAddress& address);

/// bind(2). Paths are names of sockets in file systems, so containers that share a volume share
/// them; abstract names are the sandbox's, as its containers share one network namespace. An empty
/// name: takes a free abstract one. EADDRINUSE, EINVAL, errors of paths.
Status bind_unix_name(Task& task, UnixEndpoint& end, std::string name);
/// ECONNREFUSED: nobody is bound there; EPROTOTYPE: of another type; EACCES, ENOENT...
Result<RefPtr<UnixEndpoint>> find_unix_name(Task& task, const std::string& name, int type);
/// From UnixEndpoint::close().
void forget_unix_name(UnixEndpoint& end, const std::string& name, const Path& path);

}  // namespace moat::kernel
