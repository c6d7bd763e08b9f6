#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/inotify/inotify.h"
#include "kernel/fs/permission.h"
#include "kernel/fs/vfs.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

/// The checks that all calls share which make a new name (Linux: filename_create, may_create):
/// EEXIST comes before EROFS and EACCES.
Result<ParentAndName> new_name(Task& task, DirFd dirfd, std::string_view path, bool directory) {
    ParentAndName last = TRY(resolve_parent(task, dirfd, path));
    if (last.kind != LastKind::kName) {
        return Errno(EEXIST);
    }
    Dentry& parent = *last.directory.dentry();
    auto found = lookup_dentry(task, parent, last.name);
    if (found.ok()) {
        return Errno(EEXIST);
    }
    if (!(found.error() == ENOENT)) {
        return found.error();
    }
    if ((last.trailing_slash && !directory) || parent.is_deleted()) {
        return Errno(ENOENT);
    }
    TRY(check_writable_mount(last.directory));
    TRY(check_permission(task, *parent.inode(), kMayWrite | kMayExec));
    return last;
}

/// Remembers what was made, or that somebody else was faster.
Result<Path> made_entry(const ParentAndName& last, Result<RefPtr<Inode>> made, uint32_t event) {
    Dentry& parent = *last.directory.dentry();
    if (!made.ok()) {
        if (made.error() == EEXIST) {
            DentryCache::forget_name(parent, last.name);
        }
        return made.error();
    }
    RefPtr<Dentry> dentry = DentryCache::insert_new(parent, last.name, std::move(*made));
    notify_entry(parent, last.name, event);
    return Path(last.directory.mount_ref(), std::move(dentry));
}

/// `inode` has lost a name: its watches end with its last one.
void notify_unlinked(const Path& path) {
    if (inotify_watch_count.load(std::memory_order_relaxed) == 0) {
        return;
    }
    Inode& inode = *path.dentry()->inode();
    const uint32_t is_directory = inode.is_directory() ? IN_ISDIR : 0;
    const auto attributes = inode.attributes();
    if (!inode.is_directory()) {
        notify_inode(inode, {}, IN_ATTRIB, 0);
    }
    if (!attributes.ok() || attributes->nlink == 0 || inode.is_directory()) {
        notify_inode(inode, {}, IN_DELETE_SELF | is_directory, 0);
    }
}

}  // namespace

Status make_node(Task& task, DirFd dirfd, std::string_view path, uint32_t mode, uint64_t rdev) {
    switch (mode & S_IFMT) {
        case 0:
            mode |= S_IFREG;
            break;
        case S_IFREG:
        case S_IFIFO:
        case S_IFSOCK:
            break;
        case S_IFCHR:
        case S_IFBLK:
            break;
        case S_IFDIR:
            return Errno(EPERM);
        default:
            return Errno(EINVAL);
    }
    const ParentAndName last = TRY(new_name(task, dirfd, path, false));
    const bool device = S_ISCHR(mode) || S_ISBLK(mode);
    if (device && !task.has_capability(CAP_MKNOD)) {
        return Errno(EPERM);
    }
    Inode& parent = *last.directory.dentry()->inode();
    const NewInode what = TRY(new_inode_in(
        task, parent, (mode & (S_IFMT | 07777)) & ~task.fs().umask(), device ? rdev : 0));
    TRY(made_entry(last, parent.create(task, last.name, what), IN_CREATE));
    return {};
}

Result<Path> make_socket_node(Task& task, std::string_view path, uint32_t mode) {
    const ParentAndName last = TRY(new_name(task, kCwd, path, false));
    Inode& parent = *last.directory.dentry()->inode();
    const NewInode what =
        TRY(new_inode_in(task, parent, S_IFSOCK | (mode & 07777 & ~task.fs().umask())));
    return made_entry(last, parent.create(task, last.name, what), IN_CREATE);
}

Status make_directory(Task& task, DirFd dirfd, std::string_view path, uint32_t mode) {
    const ParentAndName last = TRY(new_name(task, dirfd, path, true));
    Inode& parent = *last.directory.dentry()->inode();
    const NewInode what =
        TRY(new_inode_in(task, parent, S_IFDIR | (mode & 01777 & ~task.fs().umask())));
    TRY(made_entry(last, parent.make_directory(task, last.name, what), IN_CREATE | IN_ISDIR));
    return {};
}

Status make_symlink(Task& task, std::string_view target, DirFd dirfd, std::string_view path) {
    if (target.empty()) {
        return Errno(ENOENT);
    }
    const ParentAndName last = TRY(new_name(task, dirfd, path, false));
    Inode& parent = *last.directory.dentry()->inode();
    const NewInode what = TRY(new_inode_in(task, parent, S_IFLNK | 0777));
    TRY(made_entry(last, parent.make_symlink(task, last.name, target, what), IN_CREATE));
    return {};
}

Status make_link(Task& task, DirFd old_dirfd, std::string_view old_path, DirFd new_dirfd,
                 std::string_view new_path, int flags) {
    if ((flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)) != 0) {
        return Errno(EINVAL);
    }
    if ((flags & AT_EMPTY_PATH) != 0 && !task.has_capability(CAP_DAC_READ_SEARCH)) {
        return Errno(ENOENT);
    }
    const Path old = TRY(resolve(task, old_dirfd, old_path,
                                 ((flags & AT_SYMLINK_FOLLOW) != 0 ? 0u : kNoFollow) |
                                     ((flags & AT_EMPTY_PATH) != 0 ? kAllowEmpty : 0u)));
    const ParentAndName last = TRY(new_name(task, new_dirfd, new_path, false));
    if (old.mount() != last.directory.mount() &&
        !(&old.mount()->file_system() == &last.directory.mount()->file_system() &&
          old.dentry()->is_deleted())) {
        return Errno(EXDEV);
    }
    Inode& target = *old.dentry()->inode();
    if (target.is_directory()) {
        return Errno(EPERM);
    }
    Dentry& parent = *last.directory.dentry();
    const Status linked = parent.inode()->link(task, last.name, target);
    DentryCache::forget_name(parent, last.name);
    TRY(Status(linked));
    notify_entry(parent, last.name, IN_CREATE);
    notify_file(old, IN_ATTRIB);
    return {};
}

Status unlink_at(Task& task, DirFd dirfd, std::string_view path) {
    const ParentAndName last = TRY(resolve_parent(task, dirfd, path));
    if (last.kind != LastKind::kName) {
        return Errno(EISDIR);
    }
    Dentry& parent = *last.directory.dentry();
    const RefPtr<Dentry> victim = TRY(lookup_dentry(task, parent, last.name));
    Inode& inode = *victim->inode();
    if (last.trailing_slash) {
        return Errno(inode.is_directory() ? EISDIR : ENOTDIR);
    }
    TRY(check_writable_mount(last.directory));
    TRY(check_delete(task, *parent.inode(), inode));
    if (inode.is_directory()) {
        return Errno(EISDIR);
    }
    if (victim->is_mountpoint()) {
        return Errno(EBUSY);
    }
    TRY(parent.inode()->unlink(task, last.name, inode));
    DentryCache::remove(*victim);
    notify_entry(parent, last.name, IN_DELETE);
    notify_unlinked(Path(last.directory.mount_ref(), victim));
    return {};
}

Status remove_directory_at(Task& task, DirFd dirfd, std::string_view path) {
    const ParentAndName last = TRY(resolve_parent(task, dirfd, path));
    switch (last.kind) {
        case LastKind::kName:
            break;
        case LastKind::kDot:
            return Errno(EINVAL);
        case LastKind::kDotDot:
            return Errno(ENOTEMPTY);
        case LastKind::kRoot:
            return Errno(EBUSY);
    }
    Dentry& parent = *last.directory.dentry();
    const RefPtr<Dentry> victim = TRY(lookup_dentry(task, parent, last.name));
    Inode& inode = *victim->inode();
    TRY(check_writable_mount(last.directory));
    TRY(check_delete(task, *parent.inode(), inode));
    if (!inode.is_directory()) {
        return Errno(ENOTDIR);
    }
    if (victim->is_mountpoint()) {
        return Errno(EBUSY);
    }
    TRY(parent.inode()->remove_directory(task, last.name, inode));
    DentryCache::remove(*victim);
    notify_entry(parent, last.name, IN_DELETE | IN_ISDIR);
    notify_unlinked(Path(last.directory.mount_ref(), victim));
    return {};
}

Status rename_at(Task& task, DirFd old_dirfd, std::string_view old_path, DirFd new_dirfd,
                 std::string_view new_path, uint32_t flags) {
    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) != 0 ||
        ((flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)) != 0 && (flags & RENAME_EXCHANGE) != 0)) {
        return Errno(EINVAL);
    }
    if ((flags & RENAME_WHITEOUT) != 0) {
        return Errno(task.has_capability(CAP_MKNOD) ? EINVAL : EPERM);
    }
    const ParentAndName from = TRY(resolve_parent(task, old_dirfd, old_path));
    const ParentAndName to = TRY(resolve_parent(task, new_dirfd, new_path));
    if (from.directory.mount() != to.directory.mount()) {
        return Errno(EXDEV);
    }
    if (from.kind != LastKind::kName) {
        return Errno(EBUSY);
    }
    if (to.kind != LastKind::kName) {
        return Errno((flags & RENAME_NOREPLACE) != 0 ? EEXIST : EBUSY);
    }
    TRY(check_writable_mount(from.directory));
    Dentry& old_parent = *from.directory.dentry();
    Dentry& new_parent = *to.directory.dentry();
    const RefPtr<Dentry> source = TRY(lookup_dentry(task, old_parent, from.name));
    RefPtr<Dentry> target;
    if (auto found = lookup_dentry(task, new_parent, to.name); found.ok()) {
        target = std::move(*found);
    } else if (!(found.error() == ENOENT)) {
        return found.error();
    }
    if (target && (flags & RENAME_NOREPLACE) != 0) {
        return Errno(EEXIST);
    }
    const bool exchange = (flags & RENAME_EXCHANGE) != 0;
    if (exchange && !target) {
        return Errno(ENOENT);
    }
    Inode& moved = *source->inode();
    const bool is_directory = moved.is_directory();
    if (!is_directory && (from.trailing_slash || (!exchange && to.trailing_slash))) {
        return Errno(ENOTDIR);
    }
    if (exchange && to.trailing_slash && !target->inode()->is_directory()) {
        return Errno(ENOTDIR);
    }
    if (source->is_ancestor_of(new_parent)) {
        return Errno(EINVAL);
    }
    if (target && target->is_ancestor_of(old_parent)) {
        return Errno(exchange ? EINVAL : ENOTEMPTY);
    }
    if (target && target->inode() == &moved) {
        return {};  // two names of one file
    }
    TRY(check_delete(task, *old_parent.inode(), moved));
    if (!target) {
        TRY(check_permission(task, *new_parent.inode(), kMayWrite | kMayExec));
    } else {
        TRY(check_delete(task, *new_parent.inode(), *target->inode()));
        if (!exchange && is_directory != target->inode()->is_directory()) {
            return Errno(is_directory ? ENOTDIR : EISDIR);
        }
    }
    if (new_parent.is_deleted()) {
        return Errno(ENOENT);
    }
    // A directory that gets another parent has its ".." written.
    if (&old_parent != &new_parent) {
        if (is_directory) {
            TRY(check_permission(task, moved, kMayWrite));
        }
        if (exchange && target->inode()->is_directory()) {
            TRY(check_permission(task, *target->inode(), kMayWrite));
        }
    }
    if (source->is_mountpoint() || (target && target->is_mountpoint())) {
        return Errno(EBUSY);
    }
    TRY(old_parent.inode()->rename(task, from.name, *new_parent.inode(), to.name, flags));
    if (exchange) {
        DentryCache::exchange(*source, *target);
    } else {
        DentryCache::move(*source, new_parent, to.name);
    }
    if (inotify_watch_count.load(std::memory_order_relaxed) != 0) {
        const uint32_t directory_bit = is_directory ? IN_ISDIR : 0;
        const uint32_t cookie = next_move_cookie();
        notify_entry(old_parent, from.name, IN_MOVED_FROM | directory_bit, cookie);
        notify_entry(new_parent, to.name, IN_MOVED_TO | directory_bit, cookie);
        notify_inode(moved, {}, IN_MOVE_SELF | directory_bit, 0);
        if (target && !exchange) {
            notify_unlinked(Path(to.directory.mount_ref(), target));
        }
    }
    return {};
}

}  // namespace moat::kernel
