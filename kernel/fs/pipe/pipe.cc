#include "kernel/fs/pipe/pipe.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <new>

#include "kernel/base/check.h"
#include "kernel/fs/pipe/anonymous.h"

namespace moat::kernel {

namespace {

constexpr PollMask kEverything =
    EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDNORM | EPOLLWRNORM;

/// Capacity of all pipes of the sandbox. Beyond the limit new pipes are small and none may grow, as
/// with Linux's pipe-user-pages-soft.
std::atomic<size_t> total_capacity{0};
constexpr size_t kSoftLimit = size_t{64} << 20;
constexpr size_t kSmallCapacity = 2 * Pipe::kMinCapacity;

}  // namespace

Pipe::Pipe() : ino_(next_anonymous_inode()) {
    capacity_ = total_capacity.load(std::memory_order_relaxed) < kSoftLimit ? kDefaultCapacity
                                                                            : kSmallCapacity;
    total_capacity.fetch_add(capacity_, std::memory_order_relaxed);
}

Pipe::~Pipe() { total_capacity.fetch_sub(capacity_, std::memory_order_relaxed); }

/// Makes room for `size` bytes in all. False: no memory.
bool Pipe::reserve_storage_locked(size_t size) {
    if (size <= storage_size_) {
        return true;
    }
    const size_t wanted = std::bit_ceil(size);
    std::unique_ptr<char[]> bigger(new (std::nothrow) char[wanted]);
    if (bigger == nullptr) {
        return false;
    }
    if (size_ > 0) {
        const size_t first = std::min(size_, storage_size_ - head_);
        memcpy(bigger.get(), storage_.get() + head_, first);
        memcpy(bigger.get() + first, storage_.get(), size_ - first);
    }
    storage_ = std::move(bigger);
    storage_size_ = wanted;
    head_ = 0;
    return true;
}

void Pipe::drop_locked(size_t n) {
    size_ -= n;
    // An empty ring starts over: a pipe that is never full stays in its first, warm page.
    head_ = size_ == 0 ? 0 : (head_ + n) & (storage_size_ - 1);
}

Result<size_t> Pipe::read_locked(IoBuffer& destination) {
    if (pieces_.empty()) {
        return take_locked(destination, size_);
    }
    // Linux: pipe_read(): on through bytes of no packet, to the end of the first packet; what of
    // that has no room is lost.
    size_t moved = 0;
    while (!pieces_.empty() && !destination.empty()) {
        Piece& piece = pieces_.front();
        const Result<size_t> n = take_locked(destination, piece.size);
        if (!n.ok()) {
            return moved != 0 ? Result<size_t>(moved) : n;
        }
        moved += *n;
        piece.size -= *n;
        const bool packet = piece.packet;
        if (packet) {
            drop_locked(piece.size);
        }
        if (packet || piece.size == 0) {
            pieces_.pop_front();
        }
        if (packet) {
            break;
        }
    }
    return moved;
}

Result<size_t> Pipe::take_locked(IoBuffer& destination, size_t most) {
    size_t moved = 0;
    // At most two pieces: the ring may wrap.
    while (moved < most && !destination.empty()) {
        const size_t piece =
            std::min({most - moved, storage_size_ - head_, destination.remaining()});
        const Result<size_t> n = destination.put(storage_.get() + head_, piece);
        if (!n.ok()) {
            if (moved == 0) {
                return n.error();
            }
            break;
        }
        moved += *n;
        drop_locked(*n);
        if (*n < piece) {
            break;
        }
    }
    return moved;
}

Result<size_t> Pipe::read(IoBuffer& destination) {
    if (destination.empty()) {
        return 0;
    }
    MutexLock lock(mu_);
    if (size_ == 0) {
        if (writers_ == 0) {
            return 0;
        }
        return Errno(EAGAIN);
    }
    const size_t pieces_before = pieces_.size();
    const bool was_writable = writable_locked();
    const Result<size_t> moved = read_locked(destination);
    const bool became_writable =
        writable_locked() && (!was_writable || pieces_.size() < pieces_before);
    lock.unlock();
    if (became_writable) {
        queue_.notify(EPOLLOUT | EPOLLWRNORM);
    }
    return moved;
}

void Pipe::note_written_locked(size_t n, Mode mode) {
    if (mode == Mode::kStream && pieces_.empty()) {
        return;
    }
    if (pieces_.empty() && size_ > n) {
        pieces_.push_back({size_ - n, false});
    }
    if (mode == Mode::kStream && !pieces_.back().packet) {
        pieces_.back().size += n;
    } else {
        pieces_.push_back({n, mode == Mode::kPackets});
    }
}

Result<size_t> Pipe::write_locked(IoBuffer& source, Mode mode) {
    const size_t room = room_locked();
    const size_t wanted =
        mode == Mode::kPackets ? std::min(source.remaining(), kAtomic) : source.remaining();
    // On Linux a packet takes a page, however short it is.
    if (pieces_.size() >= capacity_ / kMinCapacity) {
        return Errno(EAGAIN);
    }
    if (wanted <= kAtomic ? room < wanted : room < kAtomic) {
        return Errno(EAGAIN);
    }
    if (!reserve_storage_locked(capacity_)) {
        return Errno(ENOMEM);
    }
    size_t left = std::min(wanted, room);
    size_t moved = 0;
    while (left > 0) {
        const size_t tail = (head_ + size_) & (storage_size_ - 1);
        const size_t piece = std::min(left, storage_size_ - tail);
        const Result<size_t> n = source.take(storage_.get() + tail, piece);
        if (!n.ok()) {
            if (moved == 0) {
                return n.error();
            }
            break;
        }
        size_ += *n;
        moved += *n;
        left -= *n;
        if (*n < piece) {
            break;
        }
    }
    return moved;
}

Result<size_t> Pipe::write(IoBuffer& source, Mode mode) {
    if (source.empty()) {
        return 0;
    }
    MutexLock lock(mu_);
    if (readers_ == 0) {
        return Errno(EPIPE);
    }
    const Result<size_t> moved = write_locked(source, mode);
    if (moved.ok() && *moved > 0) {
        note_written_locked(*moved, mode);
    }
    lock.unlock();
    if (moved.ok() && *moved > 0) {
        // Every write is an event, not only the first into an empty pipe: edge-triggered epoll
        // users depend on it (Linux: pipe_write's poll_usage).
        queue_.notify(EPOLLIN | EPOLLRDNORM);
    }
    return moved;
}

Result<size_t> Pipe::peek(void* destination, size_t size, size_t skip) {
    MutexLock lock(mu_);
    if (size_ <= skip) {
        if (writers_ == 0) {
            return 0;
        }
        return Errno(EAGAIN);
    }
    const size_t total = std::min(size, size_ - skip);
    const size_t start = (head_ + skip) & (storage_size_ - 1);
    const size_t first = std::min(total, storage_size_ - start);
    memcpy(destination, storage_.get() + start, first);
    memcpy(static_cast<char*>(destination) + first, storage_.get(), total - first);
    return total;
}

/// A FIFO keeps nothing from one set of openers to the next.
void Pipe::discard_locked() {
    size_ = 0;
    head_ = 0;
    pieces_.clear();
    storage_size_ = 0;
    storage_.reset();
}

size_t Pipe::size() {
    MutexLock lock(mu_);
    return size_;
}

size_t Pipe::capacity() {
    MutexLock lock(mu_);
    return capacity_;
}

Result<size_t> Pipe::set_capacity(size_t requested, bool privileged) {
    if (requested > kMaxCapacity) {
        return Errno(EINVAL);
    }
    const size_t wanted = std::bit_ceil(std::max(requested, kMinCapacity));
    if (wanted > kMaxUnprivilegedCapacity && !privileged) {
        return Errno(EPERM);
    }
    MutexLock lock(mu_);
    if (wanted < size_) {
        return Errno(EBUSY);
    }
    if (wanted > capacity_ && !privileged &&
        total_capacity.load(std::memory_order_relaxed) + (wanted - capacity_) > kSoftLimit) {
        return Errno(EPERM);
    }
    total_capacity.fetch_add(wanted - capacity_,
                             std::memory_order_relaxed);  // wraps when it shrinks
    capacity_ = wanted;
    const bool writable = writable_locked();
    lock.unlock();
    if (writable) {
        queue_.notify(EPOLLOUT | EPOLLWRNORM);
    }
    return wanted;
}

// ---------------------------------------------------------------- ends

PipeFile::PipeFile(RefPtr<Pipe> pipe, uint32_t flags, uint32_t uid, uint32_t gid)
    : File(flags), pipe_(std::move(pipe)), uid_(uid), gid_(gid), access_(flags & O_ACCMODE) {}

Result<RefPtr<File>> PipeFile::open(RefPtr<Pipe> pipe, Kind kind, uint32_t flags, uint32_t uid,
                                    uint32_t gid) {
    const auto file = adopt_ref(new PipeFile(std::move(pipe), flags, uid, gid));
    Pipe& p = *file->pipe_;
    const bool reads = file->reads();
    const bool writes = file->writes();
    MutexLock lock(p.mu_);
    if (kind == Kind::kFifo && reads != writes) {
        const uint32_t partners = reads ? p.writers_ : p.readers_;
        const bool waits = (flags & O_NONBLOCK) == 0;
        if (partners == 0) {
            if (writes && !waits) {
                return Errno(ENXIO);
            }
            file->partner_opens_ = reads ? p.writer_opens_ : p.reader_opens_;
            file->waits_for_partner_ = waits;
            file->hangup_hidden_ = reads;
        }
    }
    if (reads) {
        p.readers_++;
        p.reader_opens_++;
    }
    if (writes) {
        p.writers_++;
        p.writer_opens_++;
    }
    file->attached_ = true;
    lock.unlock();
    p.queue_.notify(kEverything);  // openers that wait for this end
    return RefPtr<File>(file);
}

PipeFile::~PipeFile() {
    if (!attached_) {
        return;
    }
    MutexLock lock(pipe_->mu_);
    if (reads()) {
        pipe_->readers_--;
    }
    if (writes()) {
        pipe_->writers_--;
    }
    const bool one_sided = (pipe_->readers_ == 0) != (pipe_->writers_ == 0);
    if (pipe_->readers_ == 0 && pipe_->writers_ == 0) {
        pipe_->discard_locked();
    }
    lock.unlock();
    if (one_sided) {
        pipe_->queue_.notify(kEverything);
    }
}

std::string PipeFile::anonymous_name() const {
    return "pipe:[" + std::to_string(pipe_->ino_) + "]";
}

Result<size_t> PipeFile::read(Task&, IoBuffer& destination) {
    if (!reads()) {
        return Errno(EBADF);
    }
    return pipe_->read(destination);
}

Result<size_t> PipeFile::write(Task&, IoBuffer& source) {
    if (!writes()) {
        return Errno(EBADF);
    }
    return pipe_->write(source,
                        (flags() & O_DIRECT) != 0 ? Pipe::Mode::kPackets : Pipe::Mode::kStream);
}

PollMask PipeFile::poll() {
    MutexLock lock(pipe_->mu_);
    PollMask ready = 0;
    if (reads()) {
        if (pipe_->size_ > 0) {
            ready |= EPOLLIN | EPOLLRDNORM;
        }
        if (pipe_->writers_ == 0 && !(hangup_hidden_ && pipe_->writer_opens_ == partner_opens_)) {
            ready |= EPOLLHUP;
        }
    }
    if (writes()) {
        if (pipe_->writable_locked()) {
            ready |= EPOLLOUT | EPOLLWRNORM;
        }
        if (pipe_->readers_ == 0) {
            ready |= EPOLLERR;
        }
    }
    return ready;
}

Status PipeFile::finish_open(Task&) {
    if (!waits_for_partner_) {
        return {};
    }
    MutexLock lock(pipe_->mu_);
    if ((reads() ? pipe_->writer_opens_ : pipe_->reader_opens_) == partner_opens_) {
        return Errno(EAGAIN);
    }
    return {};
}

}  // namespace moat::kernel
