#include "kernel/boot/mounts.h"

#include <errno.h>
#include <string.h>

#include "kernel/base/log.h"
#include "kernel/fs/dentry.h"
#include "kernel/fs/devpts/devpts.h"
#include "kernel/fs/gofer/gofer.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/namei.h"
#include "kernel/fs/registry.h"
#include "kernel/fs/vfs.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

Failure failure(const Errno& error, const std::string& step) {
    return {error.value(), step + ": " + strerror(error.value())};
}

}  // namespace

Outcome<RefPtr<MountNamespace>> build_container_mounts(Container& container, ScopedFd gofer) {
    const control::ContainerPlan& plan = container.plan();
    std::string message;
    auto connected = gofer::Client::connect(std::move(gofer), &message);
    if (!connected.ok()) {
        return Failure{connected.error().value(), "connect to the gofer: " + message};
    }
    const std::shared_ptr<gofer::Client> client(std::move(connected).value().release());
    auto root = GoferFileSystem::create(client, 0, GoferSharing::kExclusive);
    if (!root.ok()) {
        return failure(root.error(), "mount the root");
    }
    auto mounts = MountNamespace::create(std::move(root).value(), 0, "rootfs");
    for (const auto& mount : plan.mounts) {
        if (mount.type == "gofer" || mount.type == "shared") {
            continue;
        }
        FileSystemRequest request;
        request.container = &container;
        request.source = mount.source;
        request.options = mount.options;
        auto fs = make_file_system(mount.type, request);
        if (!fs.ok()) {
            LOG(kWarning, "boot", "mount %s at %s: %s", mount.type.c_str(),
                mount.destination.c_str(), strerror(fs.error().value()));
            continue;
        }
        (void)fs;
    }
    return mounts;
}

Outcome<RefPtr<Tty>> allocate_terminal(Container&, uint32_t, uint32_t) {
    return Failure{ENOSYS, "terminals"};
}

void upper_usage(MountNamespace&, uint64_t& bytes, uint64_t& inodes) { bytes = inodes = 0; }

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
