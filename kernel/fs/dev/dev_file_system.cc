// What a container finds at /dev: file systems "dev" (plans) and "devtmpfs" (mount(2)): a tmpfs, so
// that guests can make what they like beside it, with the nodes and links that every container is
// promised.

#include <sys/sysmacros.h>

#include <algorithm>

#include "kernel/fs/registry.h"
#include "kernel/fs/tmpfs/tmpfs.h"

namespace moat::kernel {

void register_dev_file_system();

namespace {

constexpr struct {
    const char* name;
    uint32_t mode;
    uint32_t major;
    uint32_t minor;
} kNodes[] = {
    {"null", 0666, 1, 3},    {"zero", 0666, 1, 5},  {"full", 0666, 1, 7}, {"random", 0666, 1, 8},
    {"urandom", 0666, 1, 9}, {"kmsg", 0644, 1, 11}, {"tty", 0666, 5, 0},  {"console", 0600, 5, 1},
};
constexpr struct {
    const char* name;
    const char* target;
} kLinks[] = {
    {"ptmx", "pts/ptmx"},          {"fd", "/proc/self/fd"},       {"stdin", "/proc/self/fd/0"},
    {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
};
constexpr struct {
    const char* name;
    uint32_t mode;
} kDirectories[] = {{"pts", 0755}, {"shm", 01777}, {"mqueue", 01777}};

Result<RefPtr<FileSystem>> make_dev(const FileSystemRequest& request) {
    TmpfsOptions options = TRY(TmpfsOptions::parse(request.options));
    const bool has_mode = std::any_of(request.options.begin(), request.options.end(),
                                      [](const std::string& o) { return o.starts_with("mode="); });
    if (!has_mode) {
        options.mode = 0755;
    }
    auto fs = TmpfsFileSystem::create(options);
    const auto root = fs->root_directory();
    for (const auto& node : kNodes) {
        NewInode what;
        what.mode = S_IFCHR | node.mode;
        what.rdev = makedev(node.major, node.minor);
        TRY(root->insert(node.name, TRY(fs->make_inode(what))));
    }
    for (const auto& link : kLinks) {
        NewInode what;
        what.mode = S_IFLNK | 0777;
        TRY(root->insert(link.name, TRY(fs->make_symlink_inode(link.target, what))));
    }
    for (const auto& directory : kDirectories) {
        NewInode what;
        what.mode = S_IFDIR | directory.mode;
        TRY(root->insert(directory.name, TRY(fs->make_inode(what))));
    }
    return RefPtr<FileSystem>(std::move(fs));
}

}  // namespace

void register_dev_file_system() {
    register_file_system("dev", GuestMayMount::kNo, make_dev);
    register_file_system("devtmpfs", GuestMayMount::kYes, make_dev);
}

}  // namespace moat::kernel
