#include "runtime/native/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/base/cleanup.h"
#include "runtime/util/files.h"

namespace moat::runtime {

namespace {

/// A mount of the tree at `from` at the directory `to`, with the ids of a user namespace.
Status mount_id_mapped(const std::string& from, const std::string& to, int user_namespace) {
    const ScopedFd tree(::open_tree(AT_FDCWD, from.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
    if (!tree) {
        return Error::from_errno(errno, "clone the mount of " + from);
    }
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_IDMAP | MOUNT_ATTR_RDONLY;
    attributes.userns_fd = static_cast<uint64_t>(user_namespace);
    if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
        return Error::from_errno(errno, "map the ids of " + from);
    }
    if (::move_mount(tree.get(), "", AT_FDCWD, to.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
        return Error::from_errno(errno, "mount " + from + " at " + to);
    }
    return {};
}

}  // namespace

Result<ScopedFd> user_namespace_of(const std::string& network_namespace) {
    const ScopedFd network(::open(network_namespace.c_str(), O_RDONLY | O_CLOEXEC));
    ScopedFd owner(network ? ::ioctl(network.get(), NS_GET_USERNS) : -1);
    if (!owner) {
        return Error::from_errno(errno, "user namespace of " + network_namespace);
    }
    return owner;
}

Status mount_root(const NativeContainer& container, const NativePod& pod,
                  const std::string& image) {
    const std::string work = container.bundle + "/work";
    const std::string lower = pod.mapped_root ? container.bundle + "/lower" : image;
    for (const std::string& path : {lower, container.upper(), work}) {
        if (path.find_first_of(":,\\") != std::string::npos) {
            return Error(EINVAL, "root: \"" + path + "\": overlay wants no ':', ',' or '\\' in it");
        }
    }
    for (const std::string& path : {container.upper(), work, container.rootfs()}) {
        TRY_STEP("root", make_directories(path, 0711));
    }
    // The overlay's root has the mode and the owner of `upper`.
    const MappedRoot shift = pod.mapped_root.value_or(MappedRoot());
    struct stat st {};
    if (::stat(image.c_str(), &st) != 0 ||
        ::chmod(container.upper().c_str(), st.st_mode & 07777) != 0 ||
        ::chown(container.upper().c_str(), shift.uid + st.st_uid, shift.gid + st.st_gid) != 0) {
        return Error::from_errno(errno, "root: " + image);
    }
    // The overlay keeps what it was mounted over: its lower needs no place of its own any longer.
    const Cleanup unmount_lower([&] {
        if (pod.mapped_root) {
            (void)unmount_all(lower);
        }
    });
    if (pod.mapped_root) {
        TRY_STEP("root", make_directories(lower, 0700));
        const ScopedFd ids = TRY_STEP("root", user_namespace_of(pod.network_namespace));
        TRY_STEP("root", mount_id_mapped(image, lower, ids.get()));
    }
    const std::string options =
        "lowerdir=" + lower + ",upperdir=" + container.upper() + ",workdir=" + work;
    // `volatile` (Linux 5.10): an unmount does not write a whole file system to the disk. What a
    // container wrote is not kept over a power cut, which ends its pod.
    const std::string& at = container.rootfs();
    if (::mount("overlay", at.c_str(), "overlay", 0, (options + ",volatile").c_str()) != 0 &&
        (errno != EINVAL || ::mount("overlay", at.c_str(), "overlay", 0, options.c_str()) != 0)) {
        return Error::from_errno(errno, "root: mount an overlay at " + at);
    }
    return {};
}

Status unmount_all(const std::string& at) {
    while (::umount2(at.c_str(), UMOUNT_NOFOLLOW | MNT_DETACH) == 0) {
    }
    if (errno != EINVAL && errno != ENOENT) {
        return Error::from_errno(errno, "unmount " + at);
    }
    return {};
}

}  // namespace moat::runtime
