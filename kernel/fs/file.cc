#include "kernel/fs/file.h"

#include <fcntl.h>
#include <sys/inotify.h>

#include "kernel/fs/dentry.h"
#include "kernel/fs/inode.h"
#include "kernel/fs/inode_extras.h"
#include "kernel/fs/inotify/inotify.h"
#include "kernel/fs/vfs.h"
#include "kernel/task/task.h"

namespace moat::kernel {

File::~File() {
    if (inotify_watch_count.load(std::memory_order_relaxed) != 0 && path_ && !is_path_only()) {
        notify_file(path_, writable() ? IN_CLOSE_WRITE : IN_CLOSE_NOWRITE);
    }
    release_inode();
    if (locked_.load(std::memory_order_relaxed) && path_) {
        if (InodeExtras* extras = path_.dentry()->inode()->extras_if_any()) {
            extras->locks().release_owner(this);
        }
    }
}

void File::release_inode() {
    switch (std::exchange(holds_, Holds::kNothing)) {
        case Holds::kNothing:
            break;
        case Holds::kWriting:
            path_.dentry()->inode()->end_writing();
            break;
        case Holds::kExecuting:
            path_.dentry()->inode()->end_executing();
            break;
    }
}

bool File::nonblocking() const { return (flags() & O_NONBLOCK) != 0; }

Result<size_t> File::read(Task&, IoBuffer&) { return Errno(EINVAL); }
Result<size_t> File::write(Task&, IoBuffer&) { return Errno(EINVAL); }
Result<size_t> File::pread(Task&, IoBuffer&, int64_t) { return Errno(ESPIPE); }
Result<size_t> File::pwrite(Task&, IoBuffer&, int64_t) { return Errno(ESPIPE); }
Result<int64_t> File::seek(Task&, int64_t, int) { return Errno(ESPIPE); }
Status File::read_directory(Task&, DirectorySink&) { return Errno(ENOTDIR); }
Result<int64_t> File::ioctl(Task&, uint32_t, uint64_t) { return Errno(ENOTTY); }
Status File::truncate(Task&, int64_t) { return Errno(EINVAL); }
Status File::allocate(Task&, int, int64_t, int64_t) { return Errno(ENODEV); }
Status File::sync(Task&, bool) { return Errno(EINVAL); }
Result<MapSource> File::map_source(Task&, int, bool) { return Errno(ENODEV); }
Result<int64_t> File::fcntl(Task&, int, uint64_t) { return Errno(EINVAL); }
Result<RefPtr<File>> File::reopen(Task&, uint32_t) { return Errno(ENXIO); }
Result<size_t> File::peek(Task&, void*, size_t, size_t) { return Errno(EINVAL); }

Result<struct stat> File::stat(Task& task) {
    if (path_) {
        return stat_path(task, path_);
    }
    // Files with no inode of their own (anon_inodefs of Linux) look like this there too.
    struct stat st {};
    st.st_mode = 0600;
    st.st_nlink = 1;
    st.st_blksize = 4096;
    return st;
}

void File::flush(Task& task) {
    if (path_ && !path_.dentry()->is_negative()) {
        if (InodeExtras* extras = path_.dentry()->inode()->extras_if_any()) {
            extras->locks().release_owner(&task.fds());
        }
    }
}

}  // namespace moat::kernel
