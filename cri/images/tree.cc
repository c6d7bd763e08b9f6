#include "cri/images/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <set>

#include "cri/base/rooted.h"
#include "kernel/base/scoped_fd.h"
#include "runtime/util/tree_usage.h"

namespace moat::cri {

namespace {

using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;

/// A stream of its own over an open directory, which stays the caller's.
Result<Directory> entries_of(int fd) {
    ScopedFd copy(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR* dir = copy ? fdopendir(copy.get()) : nullptr;
    if (dir == nullptr) {
        return Error::from_errno(errno, "open a directory");
    }
    (void)copy.release();
    return Directory(dir, closedir);
}

bool is_dot(const char* name) {
    return std::string_view(name) == "." || std::string_view(name) == "..";
}

Status remove_children(int fd) {
    const Directory dir = TRY(entries_of(fd));
    while (const dirent* entry = readdir(dir.get())) {
        if (!is_dot(entry->d_name)) {
            TRY(remove_at(fd, entry->d_name));
        }
    }
    return {};
}

class Stacker {
  public:
    explicit Stacker(ScopedFd root) : root_(std::move(root)) {}

    Status add(const StackedLayer& layer);

  private:
    Status hide(const LayerChanges& changes);
    Status merge(int from, int to, const std::string& path, const std::set<std::string>& implied);
    Result<ScopedFd> target_directory(int from, int to, const char* name, const std::string& path,
                                      bool implied);
    Status copy_attributes(int from, int to);
    Status link_lower(const std::string& name, const std::string& target);
    Result<ScopedFd> parent_of(const std::string& path) {
        const size_t slash = path.rfind('/');
        return open_in_root(root_.get(), slash == std::string::npos ? "" : path.substr(0, slash),
                            O_RDONLY | O_DIRECTORY);
    }
    static std::string last_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

    ScopedFd root_;
};

Status Stacker::hide(const LayerChanges& changes) {
    for (const std::string& path : changes.opaque) {
        const auto fd = open_in_root(root_.get(), path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (fd.ok()) {
            TRY_STEP("opaque " + path, remove_children(fd->get()));
        }
    }
    for (const std::string& path : changes.whiteouts) {
        const auto parent = parent_of(path);
        if (parent.ok()) {
            TRY_STEP("whiteout of " + path, remove_at(parent->get(), last_of(path)));
        }
    }
    return {};
}

Status Stacker::copy_attributes(int from, int to) {
    struct stat st {};
    if (fstat(from, &st) != 0 || fchown(to, st.st_uid, st.st_gid) != 0 ||
        fchmod(to, st.st_mode & 07777) != 0) {
        return Error::from_errno(errno, "copy owner and mode");
    }
    char names[4096];
    const ssize_t size = flistxattr(from, names, sizeof(names));
    for (ssize_t at = 0; at < size; at += static_cast<ssize_t>(strlen(names + at)) + 1) {
        char value[4096];
        const ssize_t n = fgetxattr(from, names + at, value, sizeof(value));
        if (std::string_view(names + at).rfind("user.", 0) == 0 && n >= 0) {
            fsetxattr(to, names + at, value, static_cast<size_t>(n), 0);
        }
    }
    return {};
}

/// The directory of the image that the layer's directory `name` goes to.
Result<ScopedFd> Stacker::target_directory(int from, int to, const char* name,
                                           const std::string& path, bool implied) {
    struct stat st {};
    if (fstatat(to, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (S_ISLNK(st.st_mode) && implied) {
            // The layer has lib/x and below it lib is a link to usr/lib: its author meant
            // usr/lib/x.
            auto fd = open_in_root(root_.get(), path, O_RDONLY | O_DIRECTORY);
            if (fd.ok()) {
                return fd;
            }
        }
        if (!S_ISDIR(st.st_mode)) {
            TRY(remove_at(to, name));
        }
    }
    bool made = true;
    if (mkdirat(to, name, 0700) != 0) {
        if (errno != EEXIST) {
            return Error::from_errno(errno, "mkdir " + path);
        }
        made = false;
    }
    ScopedFd fd(openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd) {
        return Error::from_errno(errno, "open " + path);
    }
    if (made || !implied) {
        TRY_STEP(path, copy_attributes(from, fd.get()));
    }
    return fd;
}

Status Stacker::merge(int from, int to, const std::string& path,
                      const std::set<std::string>& implied) {
    const Directory dir = TRY(entries_of(from));
    while (const dirent* entry = readdir(dir.get())) {
        const char* name = entry->d_name;
        if (is_dot(name)) {
            continue;
        }
        const std::string child_path = path.empty() ? name : path + "/" + name;
        struct stat st {};
        if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            return Error::from_errno(errno, "stat " + child_path);
        }
        if (S_ISDIR(st.st_mode)) {
            const ScopedFd child(
                openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
            if (!child) {
                return Error::from_errno(errno, "open " + child_path);
            }
            const ScopedFd target = TRY(
                target_directory(child.get(), to, name, child_path, implied.contains(child_path)));
            TRY(merge(child.get(), target.get(), child_path, implied));
            const timespec times[2] = {st.st_mtim, st.st_mtim};
            if (!implied.contains(child_path)) {
                futimens(target.get(), times);
            }
            continue;
        }
        if (linkat(from, name, to, name, 0) == 0) {
            continue;
        }
        if (errno != EEXIST) {
            return Error::from_errno(errno, "link " + child_path);
        }
        TRY(remove_at(to, name));
        if (linkat(from, name, to, name, 0) != 0) {
            return Error::from_errno(errno, "link " + child_path);
        }
    }
    return {};
}

Status Stacker::link_lower(const std::string& name, const std::string& target) {
    const auto from = parent_of(target);
    const std::string step = "hard link " + name + " to " + target;
    if (!from.ok()) {
        return Error(EINVAL, step + ": the target is in no layer");
    }
    const ScopedFd to = TRY_STEP(step, parent_of(name));
    TRY_STEP(step, remove_at(to.get(), last_of(name)));
    if (linkat(from->get(), last_of(target).c_str(), to.get(), last_of(name).c_str(), 0) != 0) {
        return errno == ENOENT ? Error(EINVAL, step + ": the target is in no layer")
                               : Error::from_errno(errno, step);
    }
    return {};
}

Status Stacker::add(const StackedLayer& layer) {
    TRY(hide(layer.changes));
    const ScopedFd from(open(layer.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!from) {
        return Error::from_errno(errno, "open " + layer.directory);
    }
    const std::set<std::string> implied(layer.changes.implied.begin(), layer.changes.implied.end());
    TRY(merge(from.get(), root_.get(), "", implied));
    TRY(copy_attributes(from.get(), root_.get()));
    for (const auto& [name, target] : layer.changes.links) {
        TRY(link_lower(name, target));
    }
    return {};
}

Status count_directories(int fd, Usage& usage) {
    struct stat st {};
    if (fstat(fd, &st) != 0) {
        return Error::from_errno(errno, "stat");
    }
    usage.bytes += static_cast<uint64_t>(st.st_blocks) * 512;
    usage.inodes += 1;
    const Directory dir = TRY(entries_of(fd));
    while (const dirent* entry = readdir(dir.get())) {
        if (is_dot(entry->d_name) || (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN)) {
            continue;
        }
        const ScopedFd child(
            openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (child) {
            TRY(count_directories(child.get(), usage));
        }
    }
    return {};
}

}  // namespace

Result<Usage> tree_usage(int directory_fd) {
    const auto found = TRY_HOST("usage of a tree", runtime::tree_usage(directory_fd));
    return Usage{found.bytes, found.inodes};
}

Status remove_at(int directory_fd, const std::string& name) {
    if (unlinkat(directory_fd, name.c_str(), 0) == 0 || errno == ENOENT) {
        return {};
    }
    if (errno != EISDIR && errno != EPERM) {
        return Error::from_errno(errno, "remove " + name);
    }
    const ScopedFd child(
        openat(directory_fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!child) {
        return Error::from_errno(errno, "remove " + name);
    }
    TRY(remove_children(child.get()));
    if (unlinkat(directory_fd, name.c_str(), AT_REMOVEDIR) != 0) {
        return Error::from_errno(errno, "remove " + name);
    }
    return {};
}

Result<Usage> stack_layers(const std::vector<StackedLayer>& layers, const std::string& directory) {
    ScopedFd root(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root) {
        return Error::from_errno(errno, "open " + directory);
    }
    const ScopedFd count_fd(openat(root.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    Stacker stacker(std::move(root));
    for (size_t i = 0; i < layers.size(); ++i) {
        TRY_STEP("layer " + std::to_string(i + 1), stacker.add(layers[i]));
    }
    Usage usage;
    TRY(count_directories(count_fd.get(), usage));
    return usage;
}

}  // namespace moat::cri
