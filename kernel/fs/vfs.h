#pragma once

// What system calls do with paths and files, one function each: permission checks, mount flags,
// dentry cache and inotify events are all here; kernel/syscalls only moves arguments.

#include <linux/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "kernel/base/ref_ptr.h"
#include "kernel/base/result.h"
#include "kernel/fs/file.h"
#include "kernel/fs/inode.h"
#include "kernel/fs/mount.h"
#include "kernel/fs/namei.h"

namespace moat::kernel {

/// O_LARGEFILE as guests see it: glibc's own constant is 0 on 64-bit machines.
inline constexpr uint32_t kLargeFile = 0100000;

/// How to open, checked (openat2(2)).
struct OpenHow {
    uint32_t flags = 0;
    uint32_t mode = 0;    ///< umask not applied
    uint32_t lookup = 0;  ///< LookupFlags from RESOLVE_*
    /// open(2): unknown flags are ignored, as ever.
    static Result<OpenHow> from_open(uint32_t flags, uint32_t mode);
    /// openat2(2): what is unknown is EINVAL.
    static Result<OpenHow> from_openat2(uint64_t flags, uint64_t mode, uint64_t resolve);
};

/// The description may still have to wait: see File::finish_open().
Result<RefPtr<File>> open_at(Task& task, DirFd dirfd, std::string_view path, const OpenHow& how);
/// Opens what `path` leads to, after the checks of open(2) (no creation).
Result<RefPtr<File>> open_path(Task& task, const Path& path, uint32_t flags);

/// execve(2), execveat(2), `#!` interpreters: a regular file, executable for the caller, not on a
/// noexec mount (EACCES). The file is open for reading; file->path() is what /proc/self/exe shows.
/// `flags`: AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW (ELOOP for a symlink).
Result<RefPtr<File>> open_executable(Task& task, DirFd dirfd, std::string_view path, int flags);
/// Reads into the sentry, fewer bytes only at the end of the file.
Result<size_t> read_at(Task& task, File& file, void* destination, size_t size, int64_t offset);
/// For /proc/PID/maps, fd links and exe: path_text(), or the file's own name if it has no path.
std::string file_name(const File& file, const Path& root);

Result<struct stat> stat_path(Task& task, const Path& path);
struct stat to_stat(const InodeAttributes& attributes, uint64_t device);
Result<struct stat> stat_at(Task& task, DirFd dirfd, std::string_view path, int at_flags);
Status access_at(Task& task, DirFd dirfd, std::string_view path, int mode, int at_flags);

Status make_node(Task& task, DirFd dirfd, std::string_view path, uint32_t mode, uint64_t rdev);
/// O_PATH's description of `path`.
RefPtr<File> make_path_file(const Path& path, uint32_t flags);
/// For bind(2) of unix sockets: makes the S_IFSOCK node and returns where it is. EADDRINUSE is the
/// caller's word for EEXIST.
Result<Path> make_socket_node(Task& task, std::string_view path, uint32_t mode);
Status make_directory(Task& task, DirFd dirfd, std::string_view path, uint32_t mode);
Status make_symlink(Task& task, std::string_view target, DirFd dirfd, std::string_view path);
Status make_link(Task& task, DirFd old_dirfd, std::string_view old_path, DirFd new_dirfd,
                 std::string_view new_path, int at_flags);
Status unlink_at(Task& task, DirFd dirfd, std::string_view path);
Status remove_directory_at(Task& task, DirFd dirfd, std::string_view path);
Status rename_at(Task& task, DirFd old_dirfd, std::string_view old_path, DirFd new_dirfd,
                 std::string_view new_path, uint32_t flags);
Result<std::string> read_link_at(Task& task, DirFd dirfd, std::string_view path);

Status change_mode(Task& task, const Path& path, uint32_t mode);
/// UINT32_MAX leaves it as it is.
Status change_owner(Task& task, const Path& path, uint32_t uid, uint32_t gid);
/// utimensat(2): access and modification time, with UTIME_NOW and UTIME_OMIT; null: both now.
/// EINVAL.
Status change_times(Task& task, const Path& path, const timespec* times);
Status truncate_path(Task& task, const Path& path, int64_t size);

/// After data was written by someone without CAP_FSETID: drops the set-ID bits.
void strip_privilege(Task& task, File& file);

}  // namespace moat::kernel
