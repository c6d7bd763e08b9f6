#pragma once

// The file system's calls. Each is thin: arguments in, kernel/fs/vfs.h, results out.

#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <time.h>
#include <utime.h>

#include <cstdint>

#include <linux/openat2.h>
#include <linux/stat.h>

#include "kernel/base/result.h"
#include "kernel/fs/fd_table.h"
#include "kernel/fs/namei.h"
#include "kernel/mm/user_ptr.h"

namespace moat::kernel {

using UserPath = UserPtr<const char>;

// sys_read_write.cc
Result<int64_t> sys_read(Task&, Fd, GuestAddr buffer, size_t count);
Result<int64_t> sys_write(Task&, Fd, GuestAddr buffer, size_t count);
Result<int64_t> sys_pread64(Task&, Fd, GuestAddr buffer, size_t count, int64_t offset);
Result<int64_t> sys_pwrite64(Task&, Fd, GuestAddr buffer, size_t count, int64_t offset);
Result<int64_t> sys_readv(Task&, Fd, UserPtr<const iovec>, uint64_t count);
Result<int64_t> sys_writev(Task&, Fd, UserPtr<const iovec>, uint64_t count);
Result<int64_t> sys_preadv(Task&, Fd, UserPtr<const iovec>, uint64_t count, int64_t offset);
Result<int64_t> sys_pwritev(Task&, Fd, UserPtr<const iovec>, uint64_t count, int64_t offset);
Result<int64_t> sys_preadv2(Task&, Fd, UserPtr<const iovec>, uint64_t count, int64_t offset,
                            uint64_t offset_high, uint32_t flags);
Result<int64_t> sys_pwritev2(Task&, Fd, UserPtr<const iovec>, uint64_t count, int64_t offset,
                             uint64_t offset_high, uint32_t flags);
Result<int64_t> sys_lseek(Task&, Fd, int64_t offset, int whence);

// sys_file.cc
Result<int64_t> sys_open(Task&, UserPath, uint32_t flags, uint32_t mode);
Result<int64_t> sys_openat(Task&, DirFd, UserPath, uint32_t flags, uint32_t mode);
Result<int64_t> sys_openat2(Task&, DirFd, UserPath, GuestAddr how, size_t size);
Result<int64_t> sys_creat(Task&, UserPath, uint32_t mode);
Status sys_close(Task&, Fd);
Status sys_close_range(Task&, uint32_t first, uint32_t last, uint32_t flags);
Result<Fd> sys_dup(Task&, Fd);
Result<Fd> sys_dup2(Task&, Fd, Fd);
Result<Fd> sys_dup3(Task&, Fd, Fd, uint32_t flags);
Result<int64_t> sys_ioctl(Task&, Fd, uint32_t command, uint64_t argument);
Result<Fd> sys_memfd_create(Task&, UserPath name, uint32_t flags);
Status sys_truncate(Task&, UserPath, int64_t size);
Status sys_ftruncate(Task&, Fd, int64_t size);
Status sys_fallocate(Task&, Fd, int mode, int64_t offset, int64_t size);
Status sys_fsync(Task&, Fd);
Status sys_fdatasync(Task&, Fd);
Status sys_sync(Task&);
Status sys_syncfs(Task&, Fd);
Status sys_sync_file_range(Task&, Fd, int64_t offset, int64_t size, uint32_t flags);
Status sys_fadvise64(Task&, Fd, int64_t offset, int64_t size, int advice);
Status sys_readahead(Task&, Fd, int64_t offset, size_t size);

// sys_fcntl.cc, sys_lock.cc
Result<int64_t> sys_fcntl(Task&, Fd, int command, uint64_t argument);
Result<int64_t> sys_flock(Task&, Fd, int operation);
/// fcntl(2)'s commands on record locks.
Result<int64_t> fcntl_lock(Task&, const RefPtr<File>&, int command, UserPtr<struct flock>);

// sys_stat.cc
Status sys_stat(Task&, UserPath, UserPtr<struct stat>);
Status sys_lstat(Task&, UserPath, UserPtr<struct stat>);
Status sys_fstat(Task&, Fd, UserPtr<struct stat>);
Status sys_newfstatat(Task&, DirFd, UserPath, UserPtr<struct stat>, int flags);
Status sys_statx(Task&, DirFd, UserPath, int flags, uint32_t mask, UserPtr<struct statx>);
Status sys_access(Task&, UserPath, int mode);
Status sys_faccessat(Task&, DirFd, UserPath, int mode);
Status sys_faccessat2(Task&, DirFd, UserPath, int mode, int flags);
Status sys_statfs(Task&, UserPath, UserPtr<struct statfs>);
Status sys_fstatfs(Task&, Fd, UserPtr<struct statfs>);
Status sys_chmod(Task&, UserPath, uint32_t mode);
Status sys_fchmod(Task&, Fd, uint32_t mode);
Status sys_fchmodat(Task&, DirFd, UserPath, uint32_t mode);
Status sys_fchmodat2(Task&, DirFd, UserPath, uint32_t mode, uint32_t flags);
Status sys_chown(Task&, UserPath, uint32_t uid, uint32_t gid);
Status sys_lchown(Task&, UserPath, uint32_t uid, uint32_t gid);
Status sys_fchown(Task&, Fd, uint32_t uid, uint32_t gid);
Status sys_fchownat(Task&, DirFd, UserPath, uint32_t uid, uint32_t gid, int flags);
Status sys_utime(Task&, UserPath, UserPtr<const utimbuf>);
Status sys_utimes(Task&, UserPath, UserPtr<const timeval>);
Status sys_futimesat(Task&, DirFd, UserPath, UserPtr<const timeval>);
Status sys_utimensat(Task&, DirFd, UserPath, UserPtr<const timespec>, int flags);

// sys_dir.cc
Result<int64_t> sys_getdents(Task&, Fd, GuestAddr buffer, uint32_t size);
Result<int64_t> sys_getdents64(Task&, Fd, GuestAddr buffer, uint32_t size);
Result<int64_t> sys_getcwd(Task&, GuestAddr buffer, uint64_t size);
Status sys_chdir(Task&, UserPath);
Status sys_fchdir(Task&, Fd);
Status sys_chroot(Task&, UserPath);
Result<int64_t> sys_umask(Task&, uint32_t mask);
Status sys_mkdir(Task&, UserPath, uint32_t mode);
Status sys_mkdirat(Task&, DirFd, UserPath, uint32_t mode);
Status sys_rmdir(Task&, UserPath);

// sys_link.cc
Status sys_mknod(Task&, UserPath, uint32_t mode, uint64_t device);
Status sys_mknodat(Task&, DirFd, UserPath, uint32_t mode, uint64_t device);
Status sys_unlink(Task&, UserPath);
Status sys_unlinkat(Task&, DirFd, UserPath, uint32_t flags);
Status sys_rename(Task&, UserPath, UserPath);
Status sys_renameat(Task&, DirFd, UserPath, DirFd, UserPath);
Status sys_renameat2(Task&, DirFd, UserPath, DirFd, UserPath, uint32_t flags);
Status sys_link(Task&, UserPath, UserPath);
Status sys_linkat(Task&, DirFd, UserPath, DirFd, UserPath, int flags);
Status sys_symlink(Task&, UserPath target, UserPath);
Status sys_symlinkat(Task&, UserPath target, DirFd, UserPath);
Result<int64_t> sys_readlink(Task&, UserPath, GuestAddr buffer, int32_t size);
Result<int64_t> sys_readlinkat(Task&, DirFd, UserPath, GuestAddr buffer, int32_t size);

// sys_mount.cc
Status sys_mount(Task&, UserPath source, UserPath target, UserPath type, uint64_t flags,
                 UserPath data);
Status sys_umount2(Task&, UserPath target, int flags);
Status sys_pivot_root(Task&, UserPath new_root, UserPath put_old);

// sys_xattr.cc
Status sys_setxattr(Task&, UserPath, UserPath name, GuestAddr value, size_t size, int flags);
Status sys_lsetxattr(Task&, UserPath, UserPath name, GuestAddr value, size_t size, int flags);
Status sys_fsetxattr(Task&, Fd, UserPath name, GuestAddr value, size_t size, int flags);
Result<int64_t> sys_getxattr(Task&, UserPath, UserPath name, GuestAddr value, size_t size);
Result<int64_t> sys_lgetxattr(Task&, UserPath, UserPath name, GuestAddr value, size_t size);
Result<int64_t> sys_fgetxattr(Task&, Fd, UserPath name, GuestAddr value, size_t size);
Result<int64_t> sys_listxattr(Task&, UserPath, GuestAddr list, size_t size);
Result<int64_t> sys_llistxattr(Task&, UserPath, GuestAddr list, size_t size);
Result<int64_t> sys_flistxattr(Task&, Fd, GuestAddr list, size_t size);
Status sys_removexattr(Task&, UserPath, UserPath name);
Status sys_lremovexattr(Task&, UserPath, UserPath name);
Status sys_fremovexattr(Task&, Fd, UserPath name);

// sys_sendfile.cc
Result<int64_t> sys_sendfile(Task&, Fd out, Fd in, UserPtr<int64_t> offset, size_t count);
Result<int64_t> sys_splice(Task&, Fd in, UserPtr<int64_t> in_offset, Fd out,
                           UserPtr<int64_t> out_offset, size_t count, uint32_t flags);
Result<int64_t> sys_tee(Task&, Fd in, Fd out, size_t count, uint32_t flags);
Result<int64_t> sys_vmsplice(Task&, Fd fd, UserPtr<const iovec> pieces, size_t count,
                             uint32_t flags);
Result<int64_t> sys_copy_file_range(Task&, Fd in, UserPtr<int64_t> in_offset, Fd out,
                                    UserPtr<int64_t> out_offset, size_t count, uint32_t flags);

// sys_inotify.cc
Result<Fd> sys_inotify_init(Task&);
Result<Fd> sys_inotify_init1(Task&, uint32_t flags);
Result<int64_t> sys_inotify_add_watch(Task&, Fd, UserPath, uint32_t mask);
Status sys_inotify_rm_watch(Task&, Fd, int32_t descriptor);

}  // namespace moat::kernel
