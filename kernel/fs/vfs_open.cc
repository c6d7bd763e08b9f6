#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "kernel/base/cleanup.h"
#include "kernel/fs/dentry.h"
#include "kernel/fs/fd_table.h"
#include "kernel/fs/inotify/inotify.h"
#include "kernel/fs/permission.h"
#include "kernel/fs/vfs.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"

#include <linux/capability.h>

namespace moat::kernel {

namespace {

constexpr uint32_t kPathOnly = 010000000;    // O_PATH
constexpr uint32_t kTmpfileBit = 020000000;  // __O_TMPFILE
constexpr uint32_t kKnownFlags = O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND |
                                 O_NONBLOCK | O_DSYNC | O_ASYNC | O_DIRECT | kLargeFile |
                                 O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_SYNC |
                                 kPathOnly | kTmpfileBit;
constexpr uint32_t kPathFlags = O_DIRECTORY | O_NOFOLLOW | kPathOnly | O_CLOEXEC;
/// What fcntl(F_GETFL) shows no more once the file is open.
constexpr uint32_t kNoTerminal = O_NOCTTY;
constexpr uint32_t kOpenOnly = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC;

constexpr int kCreateTurns = 16;

/// A description that only names a place (O_PATH).
class PathFile final : public File {
  public:
    explicit PathFile(uint32_t flags) : File(flags) {}
    Result<size_t> read(Task&, IoBuffer&) override { return Errno(EBADF); }
    Result<size_t> write(Task&, IoBuffer&) override { return Errno(EBADF); }
    Result<size_t> pread(Task&, IoBuffer&, int64_t) override { return Errno(EBADF); }
    Result<size_t> pwrite(Task&, IoBuffer&, int64_t) override { return Errno(EBADF); }
    Result<int64_t> seek(Task&, int64_t, int) override { return Errno(EBADF); }
    Status read_directory(Task&, DirectorySink&) override { return Errno(EBADF); }
    Result<int64_t> ioctl(Task&, uint32_t, uint64_t) override { return Errno(EBADF); }
    Status truncate(Task&, int64_t) override { return Errno(EBADF); }
    Status allocate(Task&, int, int64_t, int64_t) override { return Errno(EBADF); }
    Status sync(Task&, bool) override { return Errno(EBADF); }
    Result<MapSource> map_source(Task&, int, bool) override { return Errno(EBADF); }
    PollMask poll() override { return kInvalid; }
    bool can_epoll() override { return false; }

  private:
    static constexpr PollMask kInvalid = 0x20;
};

int may_of(uint32_t flags) {
    static constexpr int kMay[] = {kMayRead, kMayWrite, kMayRead | kMayWrite, kMayRead | kMayWrite};
    const int may = kMay[flags & O_ACCMODE];
    return (flags & O_TRUNC) != 0 ? may | kMayWrite : may;
}

Status truncate_for_open(Task& task, const Path& path) {
    Inode& inode = *path.dentry()->inode();
    AttributeChange change;
    change.size = 0;
    const InodeOwner owner = TRY(inode.owner());
    const uint32_t stripped = mode_without_privilege(owner.mode);
    if (stripped != owner.mode && !task.has_capability(CAP_FSETID)) {
        change.mode = stripped & 07777;
    }
    TRY(inode.set_attributes(change));
    notify_file(path, IN_MODIFY);
    return {};
}

/// The last step, when all is checked.
Result<RefPtr<File>> open_checked(Task& task, const Path& path, uint32_t flags) {
    const RefPtr<Inode>& inode = path.dentry()->inode_ref();
    const bool writes = inode->is_regular() && (flags & O_ACCMODE) != O_RDONLY;
    if (writes) {
        TRY(inode->begin_writing());
    }
    auto undo = Cleanup([&] {
        if (writes) {
            inode->end_writing();
        }
    });
    if ((flags & O_TRUNC) != 0 && inode->is_regular()) {
        TRY(truncate_for_open(task, path));
    }
    // Terminals still want to know; it ends here all the same.
    const uint32_t shown = inode->type() == S_IFCHR ? kOpenOnly & ~kNoTerminal : kOpenOnly;
    RefPtr<File> file = TRY(inode->open(task, path, flags & ~shown));
    if ((file->flags() & kNoTerminal) != 0) {
        file->set_flags(file->flags() & ~kNoTerminal);
    }
    if (!file->path()) {
        file->set_path(path);
    }
    undo.release();
    if (writes) {
        file->hold_inode(File::Holds::kWriting);
    }
    notify_file(path, IN_OPEN);
    return file;
}

Result<RefPtr<File>> open_unnamed(Task& task, const Path& directory, const OpenHow& how) {
    Inode& inode = *directory.dentry()->inode();
    if (!inode.is_directory()) {
        return Errno(ENOTDIR);
    }
    TRY(check_writable_mount(directory));
    TRY(check_permission(task, inode, kMayWrite | kMayExec));
    const uint32_t mode = S_IFREG | (how.mode & 07777 & ~task.fs().umask());
    RefPtr<Inode> made = TRY(inode.create_unnamed(task, TRY(new_inode_in(task, inode, mode))));
    if ((how.flags & O_EXCL) == 0) {
        made->allow_first_link();
    }
    const auto name = "#" + std::to_string(made->attributes().value_or({}).ino);
    const Path path(directory.mount_ref(),
                    Dentry::make_detached(directory.dentry()->file_system(), made, name));
    return open_checked(task, path, how.flags & ~static_cast<uint32_t>(O_DIRECTORY));
}

Result<RefPtr<File>> create_at(Task& task, Walker& walker, const OpenHow& how) {
    const uint32_t flags = how.flags;
    for (;;) {
        const ParentAndName last = TRY(walker.run_to_parent());
        if (last.kind != LastKind::kName || last.trailing_slash) {
            return Errno(EISDIR);
        }
        Dentry& directory = *last.directory.dentry();
        Inode& parent = *directory.inode();
        Path link;
        for (int turn = 0; link.is_null(); turn++) {
            auto found = lookup_dentry(task, directory, last.name);
            if (found.ok()) {
                const Path path = follow_mounts(Path(last.directory.mount_ref(), *found));
                if ((flags & O_EXCL) != 0) {
                    return Errno(EEXIST);
                }
                Inode& inode = *path.dentry()->inode();
                if (inode.is_symlink()) {
                    if ((flags & O_NOFOLLOW) != 0) {
                        return Errno(ELOOP);
                    }
                    link = path;
                    break;
                }
                if (inode.is_directory()) {
                    return Errno(EISDIR);
                }
                return open_path(task, path, flags);
            }
            if (!(found.error() == ENOENT)) {
                return found.error();
            }
            if (directory.is_deleted()) {
                return Errno(ENOENT);
            }
            TRY(check_writable_mount(last.directory));
            TRY(check_permission(task, parent, kMayWrite | kMayExec));
            const uint32_t mode = S_IFREG | (how.mode & 07777 & ~task.fs().umask());
            auto made = parent.create(task, last.name, TRY(new_inode_in(task, parent, mode)));
            if (!made.ok()) {
                // Somebody else was faster: open theirs.
                if (made.error() == EEXIST && turn < kCreateTurns) {
                    DentryCache::forget_name(directory, last.name);
                    continue;
                }
                return made.error();
            }
            const Path path(last.directory.mount_ref(),
                            DentryCache::insert_new(directory, last.name, std::move(*made)));
            notify_entry(directory, last.name, IN_CREATE);
            // A new file may be opened for writing whatever its mode says.
            return open_checked(task, path, flags & ~static_cast<uint32_t>(O_TRUNC));
        }
        if (TRY(walker.follow_last(link))) {
            if (walker.anonymous()) {
                return walker.anonymous()->reopen(task, flags & ~kOpenOnly);
            }
            if (walker.current().dentry()->inode()->is_directory()) {
                return Errno(EISDIR);
            }
            return open_path(task, walker.current(), flags);
        }
    }
}

}  // namespace

Result<OpenHow> OpenHow::from_open(uint32_t flags, uint32_t mode) {
    OpenHow how;
    flags &= kKnownFlags;
    if ((flags & kPathOnly) != 0) {
        flags &= kPathFlags;
    } else if ((flags & kTmpfileBit) != 0) {
        if ((flags & O_DIRECTORY) == 0 || (flags & O_ACCMODE) == O_RDONLY) {
            return Errno(EINVAL);
        }
    } else if ((flags & (O_CREAT | O_DIRECTORY)) == (O_CREAT | O_DIRECTORY)) {
        return Errno(EINVAL);  // Linux from 6.4 on
    }
    if ((flags & kPathOnly) == 0) {
        flags |= kLargeFile;
    }
    how.flags = flags;
    how.mode = (flags & (O_CREAT | kTmpfileBit)) != 0 ? mode & 07777 : 0;
    return how;
}

Result<OpenHow> OpenHow::from_openat2(uint64_t flags, uint64_t mode, uint64_t resolve) {
    constexpr uint64_t kResolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS |
                                  RESOLVE_BENEATH | RESOLVE_IN_ROOT | RESOLVE_CACHED;
    const bool makes = (flags & (O_CREAT | kTmpfileBit)) != 0;
    if ((flags & ~static_cast<uint64_t>(kKnownFlags)) != 0 || (mode & ~07777ull) != 0 ||
        (!makes && mode != 0) || (resolve & ~kResolve) != 0 ||
        (resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)) == (RESOLVE_BENEATH | RESOLVE_IN_ROOT) ||
        ((flags & kPathOnly) != 0 && (flags & ~static_cast<uint64_t>(kPathFlags)) != 0)) {
        return Errno(EINVAL);
    }
    if ((resolve & RESOLVE_CACHED) != 0) {
        return Errno(EAGAIN);  // openat2(2): the caller tries again without
    }
    OpenHow how = TRY(from_open(static_cast<uint32_t>(flags), static_cast<uint32_t>(mode)));
    how.lookup = ((resolve & RESOLVE_NO_XDEV) != 0 ? kNoXdev : 0u) |
                 ((resolve & RESOLVE_NO_MAGICLINKS) != 0 ? kNoMagicLinks : 0u) |
                 ((resolve & RESOLVE_NO_SYMLINKS) != 0 ? kNoSymlinks : 0u) |
                 ((resolve & RESOLVE_BENEATH) != 0 ? kBeneath : 0u) |
                 ((resolve & RESOLVE_IN_ROOT) != 0 ? kInRoot : 0u);
    return how;
}

RefPtr<File> make_path_file(const Path& path, uint32_t flags) {
    auto file = make_ref<PathFile>(flags & kPathFlags & ~static_cast<uint32_t>(O_CLOEXEC));
    file->set_path(path);
    return file;
}

Result<RefPtr<File>> open_path(Task& task, const Path& path, uint32_t flags) {
    Inode& inode = *path.dentry()->inode();
    if ((flags & O_DIRECTORY) != 0 && !inode.is_directory()) {
        return Errno(ENOTDIR);
    }
    if ((flags & kPathOnly) != 0) {
        return make_path_file(path, flags);
    }
    switch (inode.type()) {
        case S_IFLNK:
            return Errno(ELOOP);
        case S_IFDIR:
            if ((flags & (O_CREAT | O_TRUNC)) != 0 || (flags & O_ACCMODE) != O_RDONLY) {
                return Errno(EISDIR);
            }
            break;
        case S_IFCHR:
        case S_IFBLK:
            if (path.mount()->no_dev()) {
                return Errno(EACCES);
            }
            break;
        case S_IFREG:
            break;
        default:
            flags &= ~static_cast<uint32_t>(O_TRUNC);
    }
    TRY(check_permission(task, path, may_of(flags)));
    if ((flags & O_NOATIME) != 0) {
        TRY(check_ownership(task, inode));
    }
    return open_checked(task, path, flags);
}

Result<RefPtr<File>> open_at(Task& task, DirFd dirfd, std::string_view path, const OpenHow& how) {
    uint32_t lookup = how.lookup;
    if ((how.flags & O_NOFOLLOW) != 0) {
        lookup |= kNoFollow;
    }
    if ((how.flags & (O_CREAT | kPathOnly | kTmpfileBit)) == O_CREAT) {
        Walker walker = TRY(Walker::start(task, dirfd, path, lookup));
        return create_at(task, walker, how);
    }
    if ((how.flags & O_DIRECTORY) != 0) {
        lookup |= kDirectory;
    }
    if ((how.flags & (O_ACCMODE | kPathOnly | O_DIRECTORY)) == O_RDONLY) {
        lookup |= kForOpenRead;
    }
    Resolved found = TRY(resolve_any(task, dirfd, path, lookup));
    if ((how.flags & (kTmpfileBit | kPathOnly)) == kTmpfileBit) {
        return found.path ? open_unnamed(task, found.path, how)
                          : Result<RefPtr<File>>(Errno(ENOTDIR));
    }
    if (found.anonymous) {
        return found.anonymous->reopen(task, how.flags & ~kOpenOnly);
    }
    return open_path(task, found.path, how.flags);
}

Result<RefPtr<File>> open_executable(Task& task, DirFd dirfd, std::string_view path, int flags) {
    if ((flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) != 0) {
        return Errno(EINVAL);
    }
    const Path found =
        TRY(resolve(task, dirfd, path,
                    kForOpenRead | ((flags & AT_EMPTY_PATH) != 0 ? kAllowEmpty : 0u) |
                        ((flags & AT_SYMLINK_NOFOLLOW) != 0 ? kNoFollow : 0u)));
    Inode& inode = *found.dentry()->inode();
    if (inode.is_symlink()) {
        return Errno(ELOOP);
    }
    if (!inode.is_regular() || found.mount()->no_exec()) {
        return Errno(EACCES);
    }
    TRY(check_permission(task, found, kMayExec));
    auto file = TRY(open_checked(task, found, O_RDONLY | kLargeFile));
    TRY(inode.begin_executing());
    file->hold_inode(File::Holds::kExecuting);
    return file;
}

Result<size_t> read_at(Task& task, File& file, void* destination, size_t size, int64_t offset) {
    size_t done = 0;
    while (done < size) {
        IoBuffer buffer = IoBuffer::sentry(static_cast<char*>(destination) + done, size - done);
        const size_t n = TRY(file.pread(task, buffer, offset + static_cast<int64_t>(done)));
        if (n == 0) {
            break;
        }
        done += n;
    }
    return done;
}

std::string file_name(const File& file, const Path& root) {
    return file.path() ? path_text(file.path(), root) : file.anonymous_name();
}

}  // namespace moat::kernel
