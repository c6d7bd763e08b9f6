#include "runtime/native/mounts.h"

#include <errno.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/util/files.h"

namespace moat::runtime {

Status mount_root(const NativeContainer& container, const std::string& lower) {
    const std::string work = container.bundle + "/work";
    for (const std::string& path : {lower, container.upper(), work}) {
        if (path.find_first_of(":,\\") != std::string::npos) {
            return Error(EINVAL, "root: \"" + path + "\": overlay wants no ':', ',' or '\\' in it");
        }
    }
    for (const std::string& path : {container.upper(), work, container.rootfs()}) {
        TRY_STEP("root", make_directories(path, 0711));
    }
    // The overlay's root has the mode and the owner of `upper`.
    struct stat st {};
    if (::stat(lower.c_str(), &st) != 0 ||
        ::chmod(container.upper().c_str(), st.st_mode & 07777) != 0 ||
        ::chown(container.upper().c_str(), st.st_uid, st.st_gid) != 0) {
        return Error::from_errno(errno, "root: " + lower);
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
