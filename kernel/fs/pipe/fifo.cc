#include <fcntl.h>
#include <linux/capability.h>
#include <sys/ioctl.h>

#include "kernel/fs/inode.h"
#include "kernel/fs/inode_extras.h"
#include "kernel/fs/pipe/anonymous.h"
#include "kernel/fs/pipe/pipe.h"
#include "kernel/fs/registry.h"
#include "kernel/task/task.h"

namespace moat::kernel {

Result<RefPtr<File>> open_fifo(Task&, Inode& inode, uint32_t flags) {
    // The pipe stays with the inode once it is made: detaching it with the last opener could part
    // one who has just found it from the next one.
    RefPtr<RefCounted> attached = inode.extras().attached();
    if (!attached) {
        attached = inode.extras().attach(make_ref<Pipe>());
    }
    auto* const pipe = dynamic_cast<Pipe*>(attached.get());
    if (pipe == nullptr) {
        return Errno(ENXIO);
    }
    return PipeFile::open(RefPtr<Pipe>(pipe), PipeFile::Kind::kFifo, flags, 0, 0);
}

void register_fifos() {
    set_fifo_opener([](Task& task, Inode& inode, const Path&, uint32_t flags) {
        return open_fifo(task, inode, flags);
    });
}

std::pair<RefPtr<File>, RefPtr<File>> make_pipe(Task& task, uint32_t flags) {
    const CredentialsRef who = task.credentials();
    auto pipe = make_ref<Pipe>();
    const auto end = [&](uint32_t access) {
        // Only FIFOs can fail to open.
        return PipeFile::open(pipe, PipeFile::Kind::kPipe, access | flags, who->fsuid, who->fsgid)
            .value();
    };
    RefPtr<File> reader = end(O_RDONLY);
    reader->set_flags(reader->flags() & ~static_cast<uint32_t>(O_DIRECT));  // the writer's word
    RefPtr<File> writer = end(O_WRONLY);
    return {std::move(reader), std::move(writer)};
}

Result<int64_t> PipeFile::ioctl(Task& task, uint32_t command, uint64_t argument) {
    if (command == FIONREAD) {
        TRY(task.copy_out(UserPtr<int32_t>(argument), static_cast<int32_t>(pipe_->size())));
        return 0;
    }
    return Errno(ENOTTY);
}

Result<int64_t> PipeFile::fcntl(Task& task, int command, uint64_t argument) {
    switch (command) {
        case F_GETPIPE_SZ:
            return static_cast<int64_t>(pipe_->capacity());
        case F_SETPIPE_SZ: {
            // The argument is an unsigned int (Linux: pipe_fcntl).
            const auto size = static_cast<uint32_t>(argument);
            return static_cast<int64_t>(
                TRY(pipe_->set_capacity(size, task.has_capability(CAP_SYS_RESOURCE))));
        }
        default:
            return File::fcntl(task, command, argument);
    }
}

Result<struct stat> PipeFile::stat(Task& task) {
    if (!path().is_null()) {
        return File::stat(task);
    }
    return anonymous_stat(pipe_->ino(), S_IFIFO | 0600, uid_, gid_);
}

Result<RefPtr<File>> PipeFile::reopen(Task&, uint32_t flags) {
    // Linux: fs/pipe.c:fifo_open waits for no partner when the pipe has no name: the one of
    // `<(command)` may have written everything and gone.
    const Kind kind = path().is_null() ? Kind::kPipe : Kind::kFifo;
    return PipeFile::open(pipe_, kind, flags, uid_, gid_);
}

Result<size_t> PipeFile::peek(Task&, void* destination, size_t size, size_t skip) {
    if (!reads()) {
        return Errno(EBADF);
    }
    return pipe_->peek(destination, size, skip);
}

}  // namespace moat::kernel
