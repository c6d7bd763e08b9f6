#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernel/fs/dentry.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/permission.h"
#include "kernel/fs/vfs.h"
#include "kernel/syscalls/file_io.h"
#include "kernel/syscalls/handlers_fs.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

/// Most that one call gives, whatever the guest's buffer.
constexpr size_t kMaxBatch = 256 << 10;

enum class Layout : uint8_t { kOld, k64 };

/// Lays entries out as struct linux_dirent64 or, with the type at the very end, struct
/// linux_dirent.
class GuestEntries final : public DirectorySink {
  public:
    GuestEntries(size_t room, Layout layout) : room_(room), layout_(layout) {}

    bool add(std::string_view name, uint64_t ino, uint8_t type, int64_t next_offset) override {
        const size_t head = layout_ == Layout::k64 ? 19 : 18;
        const size_t tail = layout_ == Layout::k64 ? 1 : 2;  // NUL; NUL and type
        const size_t length = (head + name.size() + tail + 7) & ~size_t{7};
        if (bytes_.size() + length > room_) {
            too_small_ = bytes_.empty();
            return false;
        }
        const size_t at = bytes_.size();
        bytes_.resize(at + length);
        char* p = bytes_.data() + at;
        const auto record = static_cast<uint16_t>(length);
        memcpy(p, &ino, 8);
        memcpy(p + 8, &next_offset, 8);
        memcpy(p + 16, &record, 2);
        if (layout_ == Layout::k64) {
            p[18] = static_cast<char>(type);
        } else {
            p[length - 1] = static_cast<char>(type);
        }
        memcpy(p + head, name.data(), name.size());
        return true;
    }

    bool too_small() const { return too_small_; }
    const std::vector<char>& bytes() const { return bytes_; }

  private:
    const size_t room_;
    const Layout layout_;
    std::vector<char> bytes_;
    bool too_small_ = false;
};

Result<int64_t> read_entries(Task& task, Fd fd, GuestAddr buffer, uint32_t size, Layout layout) {
    RefPtr<File> file = TRY(any_file(task, fd));
    if (file->path() && file->path().dentry()->is_deleted() &&
        file->path().dentry()->inode()->is_directory()) {
        return Errno(ENOENT);
    }
    const auto position = file->seek(task, 0, SEEK_CUR);
    GuestEntries entries(std::min<size_t>(size, kMaxBatch), layout);
    TRY(file->read_directory(task, entries));
    if (entries.too_small()) {
        return Errno(EINVAL);
    }
    const auto copied = task.copy_out_bytes(buffer, entries.bytes().data(), entries.bytes().size());
    if (!copied.ok()) {
        if (position.ok()) {
            (void)file->seek(task, *position, SEEK_SET);  // what was not told is told again
        }
        return copied.error();
    }
    return static_cast<int64_t>(entries.bytes().size());
}

Status enter_directory(Task& task, const Path& path) {
    if (!path.dentry()->inode()->is_directory()) {
        return Errno(ENOTDIR);
    }
    return check_permission(task, path, kMayExec);
}

}  // namespace

Result<int64_t> sys_getdents(Task& task, Fd fd, GuestAddr buffer, uint32_t size) {
    return read_entries(task, fd, buffer, size, Layout::kOld);
}

Result<int64_t> sys_getdents64(Task& task, Fd fd, GuestAddr buffer, uint32_t size) {
    return read_entries(task, fd, buffer, size, Layout::k64);
}

Result<int64_t> sys_getcwd(Task& task, GuestAddr buffer, uint64_t size) {
    const Path cwd = task.fs().cwd();
    if (cwd.dentry()->is_deleted()) {
        return Errno(ENOENT);
    }
    const std::string text = path_text(cwd, task.fs().root());
    if (text.size() + 1 > PATH_MAX) {
        return Errno(ENAMETOOLONG);  // whatever the buffer: glibc goes on by another way then
    }
    if (text.size() + 1 > size) {
        return Errno(ERANGE);
    }
    TRY(task.copy_out_bytes(buffer, text.c_str(), text.size() + 1));
    return static_cast<int64_t>(text.size() + 1);
}

Status sys_chdir(Task& task, UserPath user_path) {
    Path path = TRY(resolve(task, kCwd, TRY(task.copy_in_path(user_path)), kDirectory));
    TRY(enter_directory(task, path));
    task.fs().set_cwd(std::move(path));
    return {};
}

Status sys_fchdir(Task& task, Fd fd) {
    RefPtr<File> file = TRY(task.fds().get(fd));
    if (!file->path()) {
        return Errno(ENOTDIR);
    }
    TRY(enter_directory(task, file->path()));
    task.fs().set_cwd(file->path());
    return {};
}

Status sys_chroot(Task& task, UserPath user_path) {
    Path path = TRY(resolve(task, kCwd, TRY(task.copy_in_path(user_path)), kDirectory));
    TRY(enter_directory(task, path));
    if (!task.has_capability(CAP_SYS_CHROOT)) {
        return Errno(EPERM);
    }
    task.fs().set_root(std::move(path));
    return {};
}

Result<int64_t> sys_umask(Task& task, uint32_t mask) { return task.fs().set_umask(mask & 0777); }

Status sys_mkdir(Task& task, UserPath path, uint32_t mode) {
    return make_directory(task, kCwd, TRY(task.copy_in_path(path)), mode);
}

Status sys_mkdirat(Task& task, DirFd dirfd, UserPath path, uint32_t mode) {
    return make_directory(task, dirfd, TRY(task.copy_in_path(path)), mode);
}

Status sys_rmdir(Task& task, UserPath path) {
    return remove_directory_at(task, kCwd, TRY(task.copy_in_path(path)));
}

}  // namespace moat::kernel
