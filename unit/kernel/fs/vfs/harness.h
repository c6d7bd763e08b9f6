#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "kernel/fs/dentry.h"
#include "kernel/fs/fd_table.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/tmpfs/tmpfs.h"
#include "kernel/fs/vfs.h"
#include "kernel/task/credentials.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"

// Ours and doctest's CHECK share a name: in tests it is doctest's.
#undef CHECK
#include <doctest/doctest.h>
#undef CHECK
#define CHECK(...) DOCTEST_CHECK(__VA_ARGS__)

namespace moat::kernel::test {

/// A task that never runs, at the root of a mount tree of its own.
class World {
  public:
    /// Of a tmpfs, with root's rights.
    World();
    explicit World(RefPtr<FileSystem> root);
    /// From now on `uid`, of group `gid`, with no capabilities.
    void become(uint32_t uid, uint32_t gid);
    void become_root();

    Task& task() { return *task_; }
    MountNamespace& mounts() { return *mounts_; }

    /// 0 or the errno.
    int mkdir(const std::string& path, uint32_t mode = 0755);
    int symlink(const std::string& target, const std::string& path);
    int unlink(const std::string& path);
    int rmdir(const std::string& path);
    int rename(const std::string& from, const std::string& to, uint32_t flags = 0);
    int link(const std::string& from, const std::string& to);
    int chmod(const std::string& path, uint32_t mode);
    int chown(const std::string& path, uint32_t uid, uint32_t gid);
    int stat_error(const std::string& path, int flags = 0);
    struct stat stat(const std::string& path, int flags = AT_SYMLINK_NOFOLLOW);
    int open_error(const std::string& path, uint32_t flags, uint32_t mode = 0644);
    RefPtr<File> open(const std::string& path, uint32_t flags = O_RDONLY, uint32_t mode = 0644);
    void write_file(const std::string& path, const std::string& text);
    std::string read_file(const std::string& path);
    /// Sorted, without "." and "..".
    std::vector<std::string> list(const std::string& path);
    std::string cwd();
    int chdir(const std::string& path);

  private:
    RefPtr<MountNamespace> mounts_;
    RefPtr<Task> task_;
};

std::string read_some(World& world, File& file, size_t size);
size_t write_some(World& world, File& file, const std::string& text);

}  // namespace moat::kernel::test
