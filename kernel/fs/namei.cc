#include "kernel/fs/namei.h"

#include <limits.h>
#include <sys/stat.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/fd_table.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/permission.h"
#include "kernel/task/fs_context.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr int kMaxLinks = 40;     // Linux: MAXSYMLINKS
constexpr size_t kMaxAhead = 64;  // names handed to a file system at once

// Names change under us only when other tasks change them: a few turns settle it.
constexpr int kLookupTurns = 16;

/// The next component of `text` from `position` on; empty at the end.
std::string_view component_at(std::string_view text, size_t& position) {
    while (position < text.size() && text[position] == '/') {
        position++;
    }
    const size_t begin = position;
    while (position < text.size() && text[position] != '/') {
        position++;
    }
    return text.substr(begin, position - begin);
}

bool only_slashes_from(std::string_view text, size_t position) {
    return text.find_first_not_of('/', position) == std::string_view::npos;
}

/// The names that follow in `text`, as far as they are plain names.
std::vector<std::string_view> plain_names(std::string_view first, std::string_view text,
                                          size_t position) {
    std::vector<std::string_view> names{first};
    while (names.size() < kMaxAhead) {
        const std::string_view name = component_at(text, position);
        if (name.empty() || name == "..") {
            break;
        }
        if (name == ".") {
            continue;
        }
        if (name.size() > NAME_MAX) {
            break;
        }
        names.push_back(name);
    }
    return names;
}

/// A cached dentry of a file system whose names come and go is only as good as a new lookup says.
Result<RefPtr<Dentry>> revalidate(Task& task, Dentry& directory, std::string_view name,
                                  RefPtr<Dentry> cached) {
    auto inode = directory.inode()->lookup(task, name);
    if (!inode.ok()) {
        if (inode.error() == ENOENT && !cached->is_negative()) {
            DentryCache::remove(*cached);
        }
        return inode.error();
    }
    if (!cached->is_negative()) {
        Inode& known = *cached->inode();
        if (inode->get() == &known) {
            return cached;
        }
        if (known.type() == (*inode)->type()) {
            const auto old_attributes = known.attributes();
            const auto new_attributes = (*inode)->attributes();
            if (old_attributes.ok() && new_attributes.ok() &&
                old_attributes->ino == new_attributes->ino && old_attributes->nlink > 0) {
                return cached;
            }
        }
    }
    return DentryCache::insert_new(directory, name, std::move(*inode));
}

/// `names` are the name wanted and those that come after it.
Result<RefPtr<Dentry>> lookup_names(Task& task, Dentry& directory,
                                    const std::vector<std::string_view>& names,
                                    Inode::Intent intent) {
    const std::string_view name = names.front();
    const bool stable = directory.file_system().dentries_are_stable();
    for (int turn = 0; turn < kLookupTurns; turn++) {
        if (RefPtr<Dentry> cached = DentryCache::find(directory, name)) {
            if (stable || cached->is_mountpoint()) {
                return cached->is_negative() ? Result<RefPtr<Dentry>>(Errno(ENOENT))
                                             : Result<RefPtr<Dentry>>(std::move(cached));
            }
            return revalidate(task, directory, name, std::move(cached));
        }
        const uint64_t changes = DentryCache::changes();
        const uint64_t version = DentryCache::version(directory);
        std::vector<RefPtr<Inode>> found;
        const Status walked = directory.inode()->walk(task, names, intent, found);
        if (found.empty()) {
            CHECK(!walked.ok());
            if (walked.error() == ENOENT && stable) {
                DentryCache::insert(directory, name, nullptr, version);
            }
            return walked.error();
        }
        RefPtr<Dentry> first = DentryCache::insert(directory, name, found.front(), version);
        if (!first) {
            continue;  // names have changed meanwhile
        }
        RefPtr<Dentry> last = first;
        for (size_t i = 1; i < found.size(); i++) {
            RefPtr<Dentry> next =
                DentryCache::insert_ahead(*last, names[i], std::move(found[i]), changes);
            if (!next) {
                break;
            }
            last = std::move(next);
        }
        return first;
    }
    return Errno(ESTALE);
}

}  // namespace

Result<RefPtr<Dentry>> lookup_dentry(Task& task, Dentry& directory, std::string_view name) {
    if (name.size() > NAME_MAX) {
        return Errno(ENAMETOOLONG);
    }
    return lookup_names(task, directory, {name}, Inode::Intent::kLookup);
}

Result<Path> lookup_child(Task& task, const Path& directory, std::string_view name) {
    RefPtr<Dentry> dentry = TRY(lookup_dentry(task, *directory.dentry(), name));
    return follow_mounts(Path(directory.mount_ref(), std::move(dentry)));
}

Walker::Walker(Task& task, Path root, Path start, std::string_view path, uint32_t flags)
    : task_(&task),
      root_(std::move(root)),
      start_(start),
      current_(std::move(start)),
      rest_(path),
      flags_(flags) {}

Result<Walker> Walker::start(Task& task, DirFd dirfd, std::string_view path, uint32_t flags) {
    if (path.empty() && (flags & kAllowEmpty) == 0) {
        return Errno(ENOENT);
    }
    FsContext& fs = task.fs();
    Path root = fs.root();
    const bool scoped = (flags & (kBeneath | kInRoot)) != 0;
    if (!path.empty() && path.front() == '/' && !scoped) {
        return Walker(task, root, root, path, flags);
    }
    Path start;
    RefPtr<File> anonymous;
    if (dirfd == kCwd) {
        start = fs.cwd();
    } else {
        RefPtr<File> file = TRY(task.fds().get(Fd{static_cast<int32_t>(dirfd)}));
        start = file->path();
        if (start.is_null()) {
            if (!path.empty()) {
                return Errno(ENOTDIR);
            }
            anonymous = std::move(file);
        }
    }
    if ((flags & kInRoot) != 0) {
        root = start;
    }
    Walker walker(task, std::move(root), std::move(start), path, flags);
    walker.anonymous_ = std::move(anonymous);
    return walker;
}

Status Walker::enter_root() {
    if ((flags_ & kBeneath) != 0) {
        return Errno(EXDEV);
    }
    if ((flags_ & kNoXdev) != 0 && root_.mount() != current_.mount()) {
        return Errno(EXDEV);
    }
    current_ = root_;
    return {};
}

Status Walker::go_up() {
    if ((flags_ & kBeneath) != 0 && current_ == start_) {
        return Errno(EXDEV);
    }
    while (!(current_ == root_)) {
        if (current_.dentry() == current_.mount()->root().get()) {
            Path below = current_.mount()->mountpoint();
            if (below.is_null()) {
                return {};  // the top of a tree
            }
            if ((flags_ & kNoXdev) != 0) {
                return Errno(EXDEV);
            }
            current_ = std::move(below);
            continue;
        }
        RefPtr<Dentry> parent = current_.dentry()->parent();
        if (!parent) {
            return {};
        }
        current_ = follow_mounts(Path(current_.mount_ref(), std::move(parent)));
        return {};
    }
    return {};
}

Result<Path> Walker::child(std::string_view name) {
    Dentry& directory = *current_.dentry();
    // Cached, as nearly always: no list of names has to be made.
    if (directory.file_system().dentries_are_stable()) {
        if (RefPtr<Dentry> cached = DentryCache::find(directory, name)) {
            if (cached->is_negative()) {
                return Errno(ENOENT);
            }
            return Path(current_.mount_ref(), std::move(cached));
        }
    }
    RefPtr<Dentry> dentry = TRY(lookup_names(
        *task_, directory, plain_names(name, rest_, position_),
        (flags_ & kForOpenRead) != 0 ? Inode::Intent::kOpenRead : Inode::Intent::kLookup));
    return Path(current_.mount_ref(), std::move(dentry));
}

// True: a magic link has taken us to current_ or anonymous_. False: the target is in rest_.
Result<bool> Walker::follow_link(const Path& link) {
    if ((flags_ & kNoSymlinks) != 0 || ++links_ > kMaxLinks) {
        return Errno(ELOOP);
    }
    Inode& inode = *link.dentry()->inode();
    Path target = TRY(inode.follow_magic_link(*task_));
    RefPtr<File> anonymous;
    if (target.is_null()) {
        anonymous = TRY(inode.magic_file(*task_));
    }
    if (target || anonymous) {
        if ((flags_ & kNoMagicLinks) != 0) {
            return Errno(ELOOP);
        }
        if ((flags_ & (kBeneath | kInRoot)) != 0) {
            return Errno(EXDEV);
        }
        if (target) {
            if ((flags_ & kNoXdev) != 0 && target.mount() != current_.mount()) {
                return Errno(EXDEV);
            }
            current_ = std::move(target);
        } else {
            anonymous_ = std::move(anonymous);
        }
        return true;
    }
    std::string text = TRY(inode.read_link(*task_));
    if (text.empty()) {
        return Errno(ENOENT);
    }
    if (text.front() == '/') {
        TRY(enter_root());
    }
    const bool more = position_ < rest_.size();  // a slash follows
    rest_ = more ? text + rest_.substr(position_) : std::move(text);
    position_ = 0;
    return false;
}

Result<bool> Walker::follow_last(const Path& link) { return follow_link(link); }

Status Walker::run(bool to_parent, ParentAndName* parent) {
    if (anonymous_ && rest_.empty()) {
        return {};
    }
    if (position_ == 0 && !rest_.empty() && rest_.front() == '/' &&
        (flags_ & (kBeneath | kInRoot)) != 0) {
        TRY(enter_root());
    }
    for (;;) {
        const std::string_view name = component_at(rest_, position_);
        if (name.empty()) {
            if (to_parent) {
                parent->directory = current_;
                parent->kind = LastKind::kRoot;
            }
            break;
        }
        const bool last = only_slashes_from(rest_, position_);
        const bool trailing_slash = position_ < rest_.size();
        if (anonymous_ || !current_.dentry()->inode()->is_directory()) {
            return Errno(ENOTDIR);
        }
        TRY(check_permission(*task_, *current_.dentry()->inode(), kMayExec));
        if (to_parent && last) {
            parent->directory = current_;
            parent->kind = name == "."    ? LastKind::kDot
                           : name == ".." ? LastKind::kDotDot
                                          : LastKind::kName;
            parent->name = std::string(name);
            parent->trailing_slash = trailing_slash;
            return name.size() > NAME_MAX ? Status(Errno(ENAMETOOLONG)) : Status();
        }
        if (name == ".") {
            continue;
        }
        if (name == "..") {
            TRY(go_up());
            continue;
        }
        if (name.size() > NAME_MAX) {
            return Errno(ENAMETOOLONG);
        }
        Path next = TRY(child(name));
        Inode& inode = *next.dentry()->inode();
        if (inode.is_symlink()) {
            // "link/" names what the link leads to, whatever the flags.
            const bool follow = !last || trailing_slash || (flags_ & kNoFollow) == 0;
            if (!follow) {
                current_ = std::move(next);
                if ((flags_ & kNoSymlinks) != 0) {
                    return Errno(ELOOP);
                }
                continue;
            }
            TRY(follow_link(next));
            continue;
        }
        if (next.dentry()->is_mountpoint()) {
            next = follow_mounts(std::move(next));
            if ((flags_ & kNoXdev) != 0 && next.mount() != current_.mount()) {
                return Errno(EXDEV);
            }
        }
        current_ = std::move(next);
        if ((trailing_slash || !last) && !current_.dentry()->inode()->is_directory()) {
            return Errno(ENOTDIR);
        }
    }
    if ((flags_ & kDirectory) != 0 && !to_parent &&
        (anonymous_ || !current_.dentry()->inode()->is_directory())) {
        return Errno(ENOTDIR);
    }
    return {};
}

Status Walker::run_to_end() { return run(false, nullptr); }

Result<ParentAndName> Walker::run_to_parent() {
    ParentAndName parent;
    TRY(run(true, &parent));
    return parent;
}

Result<Resolved> resolve_any(Task& task, DirFd dirfd, std::string_view path, uint32_t flags) {
    Walker walker = TRY(Walker::start(task, dirfd, path, flags));
    TRY(walker.run_to_end());
    return Resolved{walker.anonymous() ? Path() : walker.current(), walker.anonymous()};
}

Result<Path> resolve(Task& task, DirFd dirfd, std::string_view path, uint32_t flags) {
    Resolved resolved = TRY(resolve_any(task, dirfd, path, flags));
    if (resolved.anonymous) {
        return Errno(EINVAL);
    }
    return std::move(resolved.path);
}

Result<ParentAndName> resolve_parent(Task& task, DirFd dirfd, std::string_view path,
                                     uint32_t flags) {
    Walker walker = TRY(Walker::start(task, dirfd, path, flags & ~kAllowEmpty));
    return walker.run_to_parent();
}

}  // namespace moat::kernel
