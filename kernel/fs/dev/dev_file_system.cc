// What a container finds at /dev: file systems "dev" (plans) and "devtmpfs" (mount(2)).

#include <linux/magic.h>
#include <sys/sysmacros.h>

#include "kernel/fs/registry.h"
#include "kernel/fs/synthetic/synthetic.h"

namespace moat::kernel {

void register_dev_file_system();

namespace {

class DeviceInode final : public SyntheticInode {
  public:
    DeviceInode(SyntheticFileSystem& fs, uint32_t mode, uint64_t rdev)
        : SyntheticInode(fs, mode), rdev_number_(rdev) {
        set_rdev(rdev);
        set_changeable();
    }
    Result<RefPtr<File>> open(Task& task, const Path& path, uint32_t flags) override {
        return open_special(task, *this, path, rdev_number_, flags);
    }

  private:
    const uint64_t rdev_number_;
};

Result<RefPtr<FileSystem>> make_dev(const FileSystemRequest&) {
    auto fs = make_ref<SyntheticFileSystem>("devtmpfs", TMPFS_MAGIC);
    auto root = make_ref<StaticDirectory>(*fs, 0755);
    struct Node {
        const char* name;
        uint32_t mode;
        uint32_t major;
        uint32_t minor;
    };
    static constexpr Node kNodes[] = {
        {"null", 0666, 1, 3},    {"zero", 0666, 1, 5}, {"full", 0666, 1, 7},
        {"random", 0666, 1, 8},  {"urandom", 0666, 1, 9},
        {"kmsg", 0644, 1, 11},   {"tty", 0666, 5, 0},  {"console", 0600, 5, 1},
    };
    for (const Node& node : kNodes) {
        root->add(node.name, make_ref<DeviceInode>(*fs, S_IFCHR | node.mode,
                                                   makedev(node.major, node.minor)));
    }
    root->link("ptmx", "pts/ptmx");
    root->link("fd", "/proc/self/fd");
    root->link("stdin", "/proc/self/fd/0");
    root->link("stdout", "/proc/self/fd/1");
    root->link("stderr", "/proc/self/fd/2");
    root->add("pts", make_ref<StaticDirectory>(*fs, 0755));
    root->add("shm", make_ref<StaticDirectory>(*fs, 01777));
    root->add("mqueue", make_ref<StaticDirectory>(*fs, 01777));
    fs->set_root(std::move(root));
    return RefPtr<FileSystem>(std::move(fs));
}

}  // namespace

void register_dev_file_system() {
    register_file_system("dev", GuestMayMount::kNo, make_dev);
    register_file_system("devtmpfs", GuestMayMount::kYes, make_dev);
}

}  // namespace moat::kernel
