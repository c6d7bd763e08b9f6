#include <fcntl.h>
#include <sys/ioctl.h>

#include <unordered_map>

#include "kernel/fs/inode.h"
#include "kernel/fs/pipe/anonymous.h"
#include "kernel/fs/pipe/pipe.h"
#include "kernel/task/block.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

/// The pipes of FIFOs that are open somewhere, by inode. A PipeFile holds its inode and its pipe and
/// counts as a user of the row; the last one removes it.
struct FifoTable {
    struct Row {
        RefPtr<Pipe> pipe;
        size_t files = 0;
    };
    Mutex<LockRank::kFifoTable> mu;
    std::unordered_map<const Inode*, Row> rows GUARDED_BY(mu);
};

FifoTable& fifos() {
    static FifoTable* const table = new FifoTable;
    return *table;
}

}  // namespace

void fifo_file_closed(const Inode& inode) {
    FifoTable& table = fifos();
    RefPtr<Pipe> last;
    MutexLock lock(table.mu);
    const auto row = table.rows.find(&inode);
    if (--row->second.files == 0) {
        last = std::move(row->second.pipe);
        table.rows.erase(row);
    }
    lock.unlock();
}

Result<RefPtr<File>> open_fifo(Task&, Inode& inode, uint32_t flags) {
    FifoTable& table = fifos();
    const bool only_writes = (flags & O_ACCMODE) == O_WRONLY;
    // The pipe's lock is taken inside the table's: whether there is a reader must still hold when
    // the writer is counted.
    MutexLock lock(table.mu);
    const auto known = table.rows.find(&inode);
    if (only_writes && (flags & O_NONBLOCK) != 0) {
        if (known == table.rows.end() || !known->second.pipe->has_readers()) {
            return Errno(ENXIO);
        }
    }
    FifoTable::Row& row = known != table.rows.end() ? known->second : table.rows[&inode];
    if (!row.pipe) {
        row.pipe = make_ref<Pipe>();
    }
    row.files++;
    return RefPtr<File>(
        adopt_ref(new PipeFile(row.pipe, RefPtr<Inode>(&inode), flags)));
}

std::pair<RefPtr<File>, RefPtr<File>> make_pipe(Task& task, uint32_t flags) {
    const CredentialsRef credentials = task.credentials();
    auto pipe = make_ref<Pipe>();
    RefPtr<File> reader = make_ref<PipeFile>(pipe, O_RDONLY | flags, credentials->fsuid,
                                             credentials->fsgid);
    RefPtr<File> writer = make_ref<PipeFile>(pipe, O_WRONLY | flags, credentials->fsuid,
                                             credentials->fsgid);
    return {std::move(reader), std::move(writer)};
}

Result<int64_t> finish_fifo_open(
    Task& task, RefPtr<File> file,
    std::function<Result<int64_t>(Task&, RefPtr<File>)> finish) {
    auto* const fifo = dynamic_cast<PipeFile*>(file.get());
    if (fifo == nullptr || !fifo->open_pending()) {
        return finish(task, std::move(file));
    }
    WaitQueue* const queue = fifo->wait_queue();
    return block(task, {{queue, EPOLLIN | EPOLLOUT}}, Deadline::never(),
                 [file = std::move(file), finish = std::move(finish)](
                     Task& self, Wake wake) mutable -> Result<int64_t> {
                     if (!static_cast<PipeFile&>(*file).open_pending()) {
                         return finish(self, std::move(file));
                     }
                     if (wake == Wake::kInterrupted) {
                         return kRestartSys;
                     }
                     return kBlocked;
                 });
}

Result<int64_t> PipeFile::ioctl(Task& task, uint32_t command, uint64_t argument) {
    if (command == FIONREAD) {
        TRY(task.copy_out(UserPtr<int32_t>(argument), static_cast<int32_t>(pipe_->size())));
        return 0;
    }
    return Errno(ENOTTY);
}

Result<struct stat> PipeFile::stat(Task& task) {
    if (inode_) {
        return File::stat(task);
    }
    return anonymous_stat(pipe_->ino_, S_IFIFO | 0600, uid_, gid_);
}

}  // namespace moat::kernel
