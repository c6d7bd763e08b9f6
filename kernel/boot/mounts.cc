#include "kernel/boot/mounts.h"

#include <errno.h>
#include <string.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/devpts/devpts.h"
#include "kernel/fs/loader.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/namei.h"
#include "kernel/fs/overlay/overlay.h"
#include "kernel/fs/vfs.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

SharedVolumes& shared_volumes() {
    static SharedVolumes volumes;
    return volumes;
}

}  // namespace

Outcome<RefPtr<MountNamespace>> build_container_mounts(Container& container, ScopedFd gofer) {
    if (!gofer) {
        return Failure{EINVAL, "create_container: no gofer descriptor"};
    }
    std::string message;
    auto connected = gofer::Client::connect(std::move(gofer), &message);
    if (!connected.ok()) {
        return Failure{connected.error().value(), "connect to the gofer: " + message};
    }
    const std::shared_ptr<gofer::Client> client(std::move(connected).value().release());
    auto built = build_mounts(container.plan(), client, shared_volumes(), &container);
    if (!built.ok()) {
        return Failure{built.error().code(), built.error().message()};
    }
    return std::move(built).value();
}

Outcome<RefPtr<Tty>> allocate_terminal(Container& container, uint32_t uid, uint32_t gid) {
    for (const auto& mount : container.mounts()->mounts()) {
        if (strcmp(mount->file_system().type_name(), "devpts") == 0) {
            auto& devpts = static_cast<DevptsFileSystem&>(mount->file_system());
            auto tty = devpts.allocate(uid, gid);
            if (!tty.ok()) {
                return Failure{tty.error().value(), std::string("allocate a terminal: ") +
                                                        strerror(tty.error().value())};
            }
            return std::move(tty).value();
        }
    }
    return Failure{ENOENT, "allocate a terminal: container " + container.id() +
                               " has no mount of type devpts"};
}

void upper_usage(MountNamespace& mounts, uint64_t& bytes, uint64_t& inodes) {
    bytes = inodes = 0;
    FileSystem& root = mounts.root().dentry()->file_system();
    if (strcmp(root.type_name(), "overlay") != 0) {
        return;
    }
    if (const auto used = static_cast<OverlayFileSystem&>(root).upper().statistics(); used.ok()) {
        bytes = (used->f_blocks - used->f_bfree) * static_cast<uint64_t>(used->f_bsize);
        inodes = used->f_files - used->f_ffree;
    }
}

Status make_directory_path(Task& task, const std::string& path) {
    for (size_t at = 1; at <= path.size(); at++) {
        if (at == path.size() || path[at] == '/') {
            const auto made = make_directory(task, kCwd, path.substr(0, at), 0755);
            if (!made.ok() && !(made.error() == EEXIST)) {
                return made.error();
            }
        }
    }
    return {};
}

}  // namespace moat::kernel
