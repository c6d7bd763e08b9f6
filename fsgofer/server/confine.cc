#include "fsgofer/server/confine.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "fsgofer/server/host.h"

namespace moat::gofer {

namespace {

/// A clone of the source with all that is mounted below it, in no namespace yet.
SetupResult<ScopedFd> clone_tree(const GoferMount& mount, const MountOptions& options) {
    ScopedFd tree(::open_tree(AT_FDCWD, mount.source.c_str(),
                              OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
    if (!tree.valid()) {
        return SetupError::from_errno(errno, "bind " + mount.source);
    }
    mount_attr attributes{};
    attributes.attr_set =
        (options.read_only ? MOUNT_ATTR_RDONLY : 0) | (options.no_suid ? MOUNT_ATTR_NOSUID : 0) |
        (options.no_dev ? MOUNT_ATTR_NODEV : 0) | (options.no_exec ? MOUNT_ATTR_NOEXEC : 0);
    if (options.no_atime) {
        attributes.attr_clr = MOUNT_ATTR__ATIME;
        attributes.attr_set |= MOUNT_ATTR_NOATIME;
    }
    attributes.propagation = options.slave ? MS_SLAVE : MS_PRIVATE;
    if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes,
                        sizeof attributes) != 0) {
        return SetupError::from_errno(errno, "set the mount flags of " + mount.source);
    }
    mount_attr top{};
    top.attr_set = MOUNT_ATTR_RDONLY;
    if (options.read_only_top &&
        ::mount_setattr(tree.get(), "", AT_EMPTY_PATH, &top, sizeof top) != 0) {
        return SetupError::from_errno(errno, "make " + mount.source + " read-only");
    }
    return tree;
}

SetupResult<ScopedFd> make_tmpfs() {
    ScopedFd context(::fsopen("tmpfs", FSOPEN_CLOEXEC));
    if (!context.valid() ||
        ::fsconfig(context.get(), FSCONFIG_SET_STRING, "mode", "0555", 0) != 0 ||
        ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
        return SetupError::from_errno(errno, "make a tmpfs for the root");
    }
    ScopedFd tree(::fsmount(context.get(), FSMOUNT_CLOEXEC,
                            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
    if (!tree.valid()) {
        return SetupError::from_errno(errno, "mount a tmpfs for the root");
    }
    return tree;
}

/// The process's root becomes `tree`, and the old one is gone from the namespace.
SetupResult<> pivot_into(int tree) {
    // pivot_root(2) wants a mount that is attached somewhere: on top of the old root.
    if (::move_mount(tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) != 0) {
        return SetupError::from_errno(errno, "attach the new root");
    }
    if (::fchdir(tree) != 0) {
        return SetupError::from_errno(errno, "enter the new root");
    }
    if (::syscall(SYS_pivot_root, ".", ".") == 0) {
        // Now the old root lies on top of the new one (pivot_root(2), NOTES).
        if (::umount2(".", MNT_DETACH) != 0) {
            return SetupError::from_errno(errno, "detach the old root");
        }
    } else if (errno == EINVAL) {
        // An initramfs cannot be pivoted away; it stays below, where no path leads any more.
        if (::chroot(".") != 0) {
            return SetupError::from_errno(errno, "change the root");
        }
    } else {
        return SetupError::from_errno(errno, "pivot into the new root");
    }
    if (::chdir("/") != 0) {
        return SetupError::from_errno(errno, "change to the new root");
    }
    return {};
}

}  // namespace

SetupResult<ConfinedRoot> enter_root(const GoferPlan& plan) {
    // Nothing of what follows may reach the host's namespace; unmounts on the host reach us.
    if (::mount(nullptr, "/", nullptr, MS_SLAVE | MS_REC, nullptr) != 0) {
        return SetupError::from_errno(errno, "make the mounts slaves of the host's");
    }
    const ScopedFd tree = TRY(make_tmpfs());

    ConfinedRoot root;
    std::vector<ScopedFd> trees;
    for (size_t i = 0; i < plan.mounts.size(); i++) {
        const GoferMount& mount = plan.mounts[i];
        const MountOptions options = TRY(parse_options(mount));
        trees.push_back(TRY(clone_tree(mount, options)));
        struct stat s;
        if (::fstat(trees.back().get(), &s) != 0) {
            return SetupError::from_errno(errno, "look at " + mount.source);
        }
        // What a tree is mounted on: a directory on a directory, all else on a file.
        const std::string name = std::to_string(i);
        const int made = S_ISDIR(s.st_mode)
                             ? ::mkdirat(tree.get(), name.c_str(), 0555)
                             : ::mknodat(tree.get(), name.c_str(), S_IFREG | 0444, 0);
        if (made != 0) {
            return SetupError::from_errno(errno, "make a place for " + mount.source);
        }
        root.mounts.push_back({-1, name, mount.destination, options.flags()});
    }

    TRY(pivot_into(tree.get()));
    for (size_t i = 0; i < trees.size(); i++) {
        if (::move_mount(trees[i].get(), "", tree.get(), root.mounts[i].name.c_str(),
                         MOVE_MOUNT_F_EMPTY_PATH) != 0) {
            return SetupError::from_errno(errno, "mount " + plan.mounts[i].source);
        }
    }
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_RDONLY;
    if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
        return SetupError::from_errno(errno, "make the root read-only");
    }
    root.directory.reset(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root.directory.valid()) {
        return SetupError::from_errno(errno, "open the root");
    }
    for (ServedMount& mount : root.mounts) {
        mount.directory = root.directory.get();
    }
    return root;
}

SetupResult<> drop_privileges() {
    // The seeds' gofer keeps these and CAP_SYS_CHROOT, which it uses before it serves.
    static constexpr cap_value_t kKept[] = {
        CAP_CHOWN,            // files get the owner that the sentry says
        CAP_DAC_OVERRIDE,     // the sentry has checked the guest's permissions
        CAP_DAC_READ_SEARCH,  // the same; and linkat() of a descriptor
        CAP_FOWNER,           // chmod, times, xattrs of files of any owner
        CAP_FSETID,           // set-id bits survive chmod
    };
    if (::setgroups(0, nullptr) != 0) {
        return SetupError::from_errno(errno, "drop the supplementary groups");
    }
    for (cap_value_t cap = 0; cap_get_bound(cap) >= 0; cap++) {
        if (std::find(std::begin(kKept), std::end(kKept), cap) == std::end(kKept) &&
            cap_drop_bound(cap) != 0) {
            return SetupError::from_errno(errno, "drop capabilities from the bounding set");
        }
    }
    if (cap_reset_ambient() != 0) {
        return SetupError::from_errno(errno, "clear the ambient capabilities");
    }
    cap_t caps = cap_init();
    if (caps == nullptr ||
        cap_set_flag(caps, CAP_PERMITTED, std::size(kKept), kKept, CAP_SET) != 0 ||
        cap_set_flag(caps, CAP_EFFECTIVE, std::size(kKept), kKept, CAP_SET) != 0 ||
        cap_set_proc(caps) != 0) {
        return SetupError::from_errno(errno, "set the capabilities");
    }
    cap_free(caps);
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return SetupError::from_errno(errno, "set no_new_privs");
    }
    if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
        return SetupError::from_errno(errno, "become undumpable");
    }
    return {};
}

size_t claim_descriptors() {
    // The more are kept the fewer are opened again, but each pins a dentry and an inode of the
    // host.
    constexpr rlim_t kWanted = 2048;
    constexpr rlim_t kOthers = 64;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return NodeTable::kMinDescriptors;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
    return static_cast<size_t>(std::min(
        kWanted, limit.rlim_max > 2 * kOthers ? limit.rlim_max - kOthers : limit.rlim_max / 2));
}

}  // namespace moat::gofer
