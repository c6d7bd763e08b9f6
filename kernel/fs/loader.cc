#include "kernel/fs/loader.h"

#include <algorithm>

#include "kernel/base/log.h"
#include "kernel/fs/gofer/gofer.h"
#include "kernel/fs/kernel_task.h"
#include "kernel/fs/namei.h"
#include "kernel/fs/overlay/overlay.h"
#include "kernel/fs/registry.h"
#include "kernel/fs/tmpfs/tmpfs.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr int kMaxLinks = 40;

uint64_t flags_of(const control::MountPlan& plan) {
    uint64_t flags = 0;
    flags |= plan.read_only ? MS_RDONLY : 0;
    flags |= plan.no_exec ? MS_NOEXEC : 0;
    flags |= plan.no_suid ? MS_NOSUID : 0;
    flags |= plan.no_dev ? MS_NODEV : 0;
    return flags;
}

bool has_option(const control::MountPlan& plan, std::string_view name) {
    return std::find(plan.options.begin(), plan.options.end(), name) != plan.options.end();
}

/// Options that say how to mount, not what: the type's own parser is not to see them.
bool is_generic_option(std::string_view option) {
    static constexpr std::string_view kGeneric[] = {
        "rw",         "ro",       "nosuid",    "suid",        "nodev",       "dev",
        "noexec",     "exec",     "relatime",  "norelatime",  "strictatime", "noatime",
        "atime",      "bind",     "rbind",     "private",     "rprivate",    "shared",
        "rshared",    "slave",    "rslave",    "sync",        "async",       "dirsync",
        "nodiratime", "diratime", "remount",   "newinstance", "exclusive",   "defaults",
        "mand",       "nomand",   "tmpcopyup", "unbindable",  "runbindable", "nosymfollow",
        "silent",     "loud"};
    return std::find(std::begin(kGeneric), std::end(kGeneric), option) != std::end(kGeneric);
}

std::vector<std::string> type_options(const control::MountPlan& plan) {
    std::vector<std::string> options;
    for (const std::string& option : plan.options) {
        if (!is_generic_option(option)) {
            options.push_back(option);
        }
    }
    return options;
}

/// The place of `destination` below the tree's root, with what is missing made: a directory, or an
/// empty file for the mount of a file. Symlinks are followed and stay inside the root, as an image
/// may have /var/run -> /run.
Result<Path> mount_point(MountNamespace& mounts, const std::string& destination, bool directory) {
    Task& task = kernel_task();
    Path root = mounts.root();
    Path at = root;
    std::string rest = destination;
    size_t position = 0;
    int links = 0;
    for (;;) {
        while (position < rest.size() && rest[position] == '/') {
            position++;
        }
        if (position == rest.size()) {
            return at;
        }
        const size_t end = std::min(rest.find('/', position), rest.size());
        const std::string name = rest.substr(position, end - position);
        position = end;
        if (name == ".") {
            continue;
        }
        if (name == "..") {
            if (!(at == root)) {
                Path step = at.dentry() == at.mount()->root().get() ? at.mount()->mountpoint() : at;
                if (RefPtr<Dentry> up = step.dentry()->parent()) {
                    at = Path(step.mount_ref(), std::move(up));
                }
            }
            continue;
        }
        const bool last = rest.find_first_not_of('/', position) == std::string::npos;
        Inode& parent = *at.dentry()->inode();
        auto found = lookup_child(task, at, name);
        if (!found.ok()) {
            if (!(found.error() == ENOENT)) {
                return found.error();
            }
            auto made = last && !directory
                            ? parent.create(task, name, NewInode{S_IFREG | 0644, 0, 0, 0})
                            : parent.make_directory(task, name, NewInode{S_IFDIR | 0755, 0, 0, 0});
            if (!made.ok()) {
                return made.error();
            }
            at =
                Path(at.mount_ref(), DentryCache::insert_new(*at.dentry(), name, std::move(*made)));
            continue;
        }
        Inode& inode = *found->dentry()->inode();
        if (inode.is_symlink()) {
            if (++links > kMaxLinks) {
                return Errno(ELOOP);
            }
            const std::string target = TRY(inode.read_link(task));
            rest = target + rest.substr(position);
            position = 0;
            if (!target.empty() && target.front() == '/') {
                at = root;
            }
            continue;
        }
        at = std::move(*found);
        if (!last && !at.dentry()->inode()->is_directory()) {
            return Errno(ENOTDIR);
        }
    }
}

/// A path that is there already, or null.
Path existing_path(MountNamespace& mounts, const std::string& path) {
    Walker walker(kernel_task(), mounts.root(), mounts.root(), path, 0);
    return walker.run_to_end().ok() ? walker.current() : Path();
}

Error failed(const std::string& what, Errno error) { return in_step(error, what); }

}  // namespace

Result<RefPtr<FileSystem>> SharedVolumes::get(const std::string& name,
                                              const std::vector<std::string>& options) {
    MutexLock lock(mu_);
    RefPtr<FileSystem>& volume = volumes_[name];
    if (!volume) {
        const auto parsed = TmpfsOptions::parse(options);
        if (!parsed.ok()) {
            volumes_.erase(name);
            return parsed.error();
        }
        volume = TmpfsFileSystem::create(*parsed);
    }
    return volume;
}

Result<RefPtr<MountNamespace>, Error> build_mounts(const control::ContainerPlan& plan,
                                                   std::shared_ptr<gofer::Client> client,
                                                   SharedVolumes& shared, Container* container) {
    auto lower = GoferFileSystem::create(
        client, 0, plan.root.overlay ? GoferSharing::kExclusive : GoferSharing::kShared);
    if (!lower.ok()) {
        return failed("mount the root: the gofer has no mount 0", lower.error());
    }
    RefPtr<FileSystem> root = *lower;
    if (plan.root.overlay) {
        TmpfsOptions options;
        options.size = plan.root.upper_bytes;
        options.mode = 0755;
        root = OverlayFileSystem::create(TmpfsFileSystem::create(options), {*lower});
    }
    RefPtr<MountNamespace> mounts =
        MountNamespace::create(root, 0, plan.root.overlay ? "overlay" : "root");

    for (const control::MountPlan& mount : plan.mounts) {
        const std::string what = "mount " + mount.type + " at " + mount.destination;
        Result<RefPtr<FileSystem>> fs = Errno(EINVAL);
        if (mount.type == "gofer") {
            auto made = GoferFileSystem::create(
                client, static_cast<size_t>(mount.gofer_mount),
                has_option(mount, "exclusive") ? GoferSharing::kExclusive : GoferSharing::kShared);
            fs = made.ok() ? Result<RefPtr<FileSystem>>(*made) : made.error();
        } else if (mount.type == "shared") {
            fs = shared.get(mount.source, type_options(mount));
        } else {
            FileSystemRequest request;
            request.container = container;
            request.source = mount.source;
            request.options = type_options(mount);
            request.read_only = mount.read_only;
            fs = make_file_system(mount.type, request);
        }
        if (!fs.ok()) {
            return failed(what, fs.error());
        }
        RefPtr<Dentry> top = (*fs)->root_dentry();
        const auto at = mount_point(*mounts, mount.destination, top->inode()->is_directory());
        if (!at.ok()) {
            return failed(what + ": its mount point", at.error());
        }
        // What the guest reads in /proc/mounts: where on the host its files are is none of its
        // business.
        const std::string& named = mount.source.empty() ? mount.type : mount.source;
        const bool of_host = mount.type == "gofer" || named.starts_with('/');
        const auto made = mounts->mount(*at, *fs, flags_of(mount), of_host ? "none" : named);
        if (!made.ok()) {
            return failed(what, made.error());
        }
    }

    // runtime-spec: paths that are not there are left alone.
    for (const std::string& path : plan.readonly_paths) {
        const Path at = existing_path(*mounts, path);
        if (!at) {
            continue;
        }
        const auto made = mounts->bind(at, at, MountNamespace::Recursive::kYes);
        if (!made.ok()) {
            return failed("make " + path + " read-only", made.error());
        }
        (*made)->set_flags((*made)->flags() | MS_RDONLY);
    }
    for (const std::string& path : plan.masked_paths) {
        const Path at = existing_path(*mounts, path);
        if (!at) {
            continue;
        }
        Status masked;
        if (at.dentry()->inode()->is_directory()) {
            TmpfsOptions options;
            options.size = kPageSize;
            options.mode = 0755;
            auto made = mounts->mount(at, TmpfsFileSystem::create(options), MS_RDONLY, "tmpfs");
            masked = made.ok() ? Status() : made.error();
        } else if (const Path null = existing_path(*mounts, "/dev/null")) {
            auto made = mounts->bind(null, at, MountNamespace::Recursive::kNo);
            masked = made.ok() ? Status() : made.error();
        } else {
            // No /dev/null in this container: an empty file hides it as well.
            TmpfsOptions options;
            options.size = kPageSize;
            auto fs = TmpfsFileSystem::create(options);
            auto file = fs->make_inode(NewInode{S_IFREG | 0444, 0, 0, 0});
            masked = file.ok() ? Status() : file.error();
            if (file.ok()) {
                auto made = mounts->mount(at, fs, MS_RDONLY, "tmpfs",
                                          Dentry::make_detached(*fs, *file, "masked"));
                masked = made.ok() ? Status() : made.error();
            }
        }
        if (!masked.ok()) {
            return failed("mask " + path, masked.error());
        }
    }
    if (plan.root.read_only) {
        Mount& top = *mounts->root().mount();
        top.set_flags(top.flags() | MS_RDONLY);
    }
    return mounts;
}

void register_vfs() { register_tmpfs(); }

}  // namespace moat::kernel
