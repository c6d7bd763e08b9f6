#include "kernel/net/unix/names.h"

#include <cstdio>
#include <map>

#include "kernel/fs/dentry.h"
#include "kernel/fs/inode_extras.h"
#include "kernel/fs/permission.h"
#include "kernel/fs/vfs.h"
#include "kernel/net/unix/endpoint.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

struct AbstractNames {
    Mutex<LockRank::kSocketTable> mu;
    std::map<std::string, RefPtr<UnixEndpoint>, std::less<>> rows GUARDED_BY(mu);
    uint32_t next_automatic GUARDED_BY(mu) = 1;

    bool enter(const std::string& name, UnixEndpoint& end) {
        MutexLock lock(mu);
        return rows.try_emplace(name, RefPtr<UnixEndpoint>(&end)).second;
    }
};

AbstractNames& abstract_names() {
    static AbstractNames* const instance = new AbstractNames;
    return *instance;
}

Status bind_automatic(UnixEndpoint& end) {
    AbstractNames& names = abstract_names();
    for (int tries = 0; tries < 0x100000; tries++) {
        char text[8];
        {
            MutexLock lock(names.mu);
            // unix(7): five bytes of [0-9a-f] after the NUL.
            snprintf(text, sizeof text, "%05x", names.next_automatic++ & 0xfffff);
        }
        const std::string name = std::string(1, '\0') + text;
        if (names.enter(name, end)) {
            const Status named = end.set_name(name, Path());
            if (!named.ok()) {
                forget_unix_name(end, name, Path());
            }
            return named;
        }
    }
    return Errno(ENOSPC);
}

}  // namespace

Result<std::string> unix_name(const SocketAddress& address) {
    if (address.size < 2 || address.size > sizeof(sockaddr_un) || address.family() != AF_UNIX) {
        return Errno(EINVAL);
    }
    std::string name(reinterpret_cast<const char*>(address.bytes) + 2, address.size - 2);
    if (!name.empty() && name[0] != '\0') {
        name.resize(strnlen(name.data(), name.size()));
    }
    return name;
}

Status bind_unix_name(Task& task, UnixEndpoint& end, std::string name) {
    if (end.is_bound()) {
        return Errno(EINVAL);
    }
    if (name.empty()) {
        return bind_automatic(end);
    }
    if (name[0] == '\0') {
        if (!abstract_names().enter(name, end)) {
            return Errno(EADDRINUSE);
        }
        const Status named = end.set_name(name, Path());
        if (!named.ok()) {
            forget_unix_name(end, name, Path());
        }
        return named;
    }
    Result<Path> path = make_socket_node(task, name, 0777);
    if (!path.ok()) {
        return path.error() == EEXIST ? Errno(EADDRINUSE) : path.error();
    }
    InodeExtras& extras = path->dentry()->inode()->extras();
    if (!(extras.attach(RefPtr<RefCounted>(&end)) == &end)) {
        return Errno(EADDRINUSE);
    }
    const Status named = end.set_name(std::move(name), *path);
    if (!named.ok()) {
        extras.detach(&end);
    }
    return named;
}

Result<RefPtr<UnixEndpoint>> find_unix_name(Task& task, const std::string& name, int type) {
    RefPtr<UnixEndpoint> found;
    if (name.empty()) {
        return Errno(EINVAL);
    }
    if (name[0] == '\0') {
        MutexLock lock(abstract_names().mu);
        const auto row = abstract_names().rows.find(name);
        if (row == abstract_names().rows.end()) {
            return Errno(ECONNREFUSED);
        }
        found = row->second;
    } else {
        const Path path = TRY(resolve(task, kCwd, name));
        TRY(check_permission(task, path, kMayWrite));
        Inode& inode = *path.dentry()->inode();
        if (inode.type() != S_IFSOCK) {
            return Errno(ECONNREFUSED);
        }
        const RefPtr<RefCounted> attached = inode.extras().attached();
        auto* const end = dynamic_cast<UnixEndpoint*>(attached.get());
        if (end == nullptr) {
            return Errno(ECONNREFUSED);
        }
        found = RefPtr<UnixEndpoint>(end);
    }
    if (found->type() != type) {
        return Errno(EPROTOTYPE);
    }
    return found;
}

void forget_unix_name(UnixEndpoint& end, const std::string& name, const Path& path) {
    if (path) {
        path.dentry()->inode()->extras().detach(&end);
        return;
    }
    RefPtr<UnixEndpoint> removed;
    MutexLock lock(abstract_names().mu);
    const auto row = abstract_names().rows.find(name);
    if (row != abstract_names().rows.end() && row->second == &end) {
        removed = std::move(row->second);
        abstract_names().rows.erase(row);
    }
    lock.unlock();
}

}  // namespace moat::kernel
