#include "kernel/ipc/shm.h"

#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/fs/proc/machine.h"
#include "kernel/fs/synthetic/synthetic.h"
#include "kernel/mm/user_ptr.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

Mutex<LockRank::kIpc> segments_mu;

std::atomic<uint32_t> descriptors{0};

uint64_t pages_of(uint64_t bytes) { return page_up(bytes) / kPageSize; }

uint64_t resident_bytes_of(const ShmSegment& segment) {
    struct stat st;
    if (!segment.memfd.valid() || fstat(segment.memfd.get(), &st) != 0) {
        return 0;
    }
    return static_cast<uint64_t>(st.st_blocks) * 512;
}

Status make_memfd(ShmSegment& segment) {
    if (segment.memfd.valid()) {
        return {};
    }
    if (descriptors.fetch_add(1, std::memory_order_relaxed) >= ShmTable::kMostDescriptors) {
        descriptors.fetch_sub(1, std::memory_order_relaxed);
        return Errno(ENOMEM);
    }
    ScopedFd fd(memfd_create("moat-sysv", MFD_CLOEXEC));
    if (!fd || ftruncate(fd.get(), static_cast<off_t>(page_up(segment.size))) != 0) {
        descriptors.fetch_sub(1, std::memory_order_relaxed);
        return Errno(ENOMEM);
    }
    segment.memfd = std::move(fd);
    return {};
}

}  // namespace

// ---------------------------------------------------------------- segments

ShmSegment::~ShmSegment() {
    if (memfd.valid()) {
        descriptors.fetch_sub(1, std::memory_order_relaxed);
    }
}

void ShmSegment::attach(const IpcActor& who) {
    MutexLock lock(segments_mu);
    attached++;
    attached_at = ipc_now();
    last = who;
}

void ShmSegment::note_mapped(const IpcActor& who) {
    MutexLock lock(segments_mu);
    attached_at = ipc_now();
    last = who;
}

void ShmSegment::detach(const IpcActor& who) {
    const RefPtr<ShmSegment> self(this);  // the table's may be the last but ours
    MutexLock lock(segments_mu);
    attached--;
    detached_at = ipc_now();
    last = who;
    if (attached == 0 && table != nullptr &&
        ((permissions.mode & SHM_DEST) != 0 || table->limits_.remove_forced)) {
        table->destroy_locked(*this);
    }
    lock.unlock();
}

// ---------------------------------------------------------------- the table

ShmTable::~ShmTable() {
    MutexLock lock(segments_mu);
    for (const auto& segment : segments_.slots()) {
        if (segment) {
            segment->table = nullptr;
        }
    }
}

void ShmTable::destroy_locked(ShmSegment& segment) {
    pages_ -= pages_of(segment.size);
    segment.table = nullptr;
    segments_.remove(segment);
}

Result<int32_t> ShmTable::create_locked(Task& task, int32_t key, size_t size, uint32_t flags) {
    if (size < 1 || size > limits_.bytes) {
        return Errno(EINVAL);
    }
    if ((flags & SHM_HUGETLB) != 0) {
        return unsupported("shmget SHM_HUGETLB", ENOMEM);
    }
    if (page_up(size) < size || pages_ + pages_of(size) < pages_ ||
        pages_ + pages_of(size) > limits_.pages || segments_.count() >= limits_.segments) {
        return Errno(ENOSPC);
    }
    // As a machine without swap with vm.overcommit_memory=0: what can never be there is refused.
    if (size > machine().memory_bytes.load(std::memory_order_relaxed)) {
        return Errno(ENOMEM);
    }
    auto segment = make_ref<ShmSegment>();
    segment->permissions = IpcPermissions::of_creator(key, flags, *task.credentials());
    segment->size = size;
    segment->creator = IpcActor::of(task);
    segment->creator_group = &task.group();
    segment->table = this;
    segment->changed_at = ipc_now();
    pages_ += pages_of(size);
    segments_.insert(segment);
    return segment->id;
}

Result<int32_t> ShmTable::get(Task& task, int32_t key, size_t size, uint32_t flags) {
    MutexLock lock(segments_mu);
    return segments_.get(
        *task.credentials(), key, flags,
        [size](const ShmSegment& segment) {
            return segment.size < size ? Status(Errno(EINVAL)) : Status();
        },
        [&] { return create_locked(task, key, size, flags); });
}

Result<RefPtr<ShmSegment>> ShmTable::begin_attach(Task& task, int32_t id, uint32_t wanted) {
    MutexLock lock(segments_mu);
    const RefPtr<ShmSegment> segment = TRY(segments_.find(id));
    TRY(segment->permissions.check(*task.credentials(), wanted));
    TRY(make_memfd(*segment));
    segment->attached++;
    return segment;
}

Result<ShmTable::Status64> ShmTable::stat(Task& task, int32_t number, By by) {
    MutexLock lock(segments_mu);
    const RefPtr<ShmSegment> s = by == By::kId ? TRY(segments_.find(number)) : segments_.at(number);
    if (!s) {
        return Errno(EINVAL);
    }
    if (by != By::kIndexAny) {
        TRY(s->permissions.check(*task.credentials(), 0444));
    }
    Status64 status{};
    status.id = s->id;
    status.ds.shm_perm = s->permissions.to_user(s->id);
    status.ds.shm_segsz = s->size;
    status.ds.shm_atime = s->attached_at;
    status.ds.shm_dtime = s->detached_at;
    status.ds.shm_ctime = s->changed_at;
    status.ds.shm_cpid = s->creator.shown_to(task);
    status.ds.shm_lpid = s->last.shown_to(task);
    status.ds.shm_nattch = s->attached;
    return status;
}

Status ShmTable::set(Task& task, int32_t id, const shmid_ds& wanted) {
    MutexLock lock(segments_mu);
    const RefPtr<ShmSegment> segment = TRY(segments_.find(id));
    const auto who = task.credentials();
    TRY(segment->permissions.check_owner(*who));
    TRY(segment->permissions.change(*who, wanted.shm_perm));
    segment->changed_at = ipc_now();
    return {};
}

Status ShmTable::remove(Task& task, int32_t id) {
    RefPtr<ShmSegment> segment;  // may be the last reference: dropped without the lock
    MutexLock lock(segments_mu);
    segment = TRY(segments_.find(id));
    TRY(segment->permissions.check_owner(*task.credentials()));
    if (segment->attached == 0) {
        destroy_locked(*segment);
    } else {
        // Nobody finds it by its key any more; by its identifier it can still be attached.
        segment->permissions.mode |= SHM_DEST;
        segment->permissions.key = IPC_PRIVATE;
    }
    lock.unlock();
    return {};
}

Status ShmTable::lock(Task& task, int32_t id, bool locked) {
    MutexLock lock(segments_mu);
    const RefPtr<ShmSegment> segment = TRY(segments_.find(id));
    const auto who = task.credentials();
    if (!who->has_capability(CAP_IPC_LOCK)) {
        const auto& p = segment->permissions;
        if (who->euid != p.uid && who->euid != p.cuid) {
            return Errno(EPERM);
        }
        if (locked && task.rlimit(RLIMIT_MEMLOCK) == 0) {
            return Errno(EPERM);
        }
    }
    segment->permissions.mode = (segment->permissions.mode & ~static_cast<uint32_t>(SHM_LOCKED)) |
                                (locked ? static_cast<uint32_t>(SHM_LOCKED) : 0u);
    return {};
}

ShmTable::Info ShmTable::info() {
    MutexLock lock(segments_mu);
    Info info{segments_.highest(), segments_.count(), pages_, 0};
    for (const auto& segment : segments_.slots()) {
        info.resident_pages += segment ? resident_bytes_of(*segment) / kPageSize : 0;
    }
    return info;
}

std::string ShmTable::text(const Task& reader) {
    std::string s =
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid"
        "  cgid      atime      dtime      ctime                   rss                  swap\n";
    MutexLock lock(segments_mu);
    for (const auto& segment : segments_.slots()) {
        if (!segment) {
            continue;
        }
        const IpcPermissions& p = segment->permissions;
        append_text(s,
                    "%10d %10d  %4o %21llu %5d %5d  %5llu %5u %5u %5u %5u %10lld %10lld %10lld"
                    " %21llu %21llu\n",
                    p.key, segment->id, p.mode, static_cast<unsigned long long>(segment->size),
                    segment->creator.shown_to(reader), segment->last.shown_to(reader),
                    static_cast<unsigned long long>(segment->attached), p.uid, p.gid, p.cuid,
                    p.cgid, static_cast<long long>(segment->attached_at),
                    static_cast<long long>(segment->detached_at),
                    static_cast<long long>(segment->changed_at),
                    static_cast<unsigned long long>(resident_bytes_of(*segment)), 0ull);
    }
    return s;
}

void ShmTable::process_exited(const ThreadGroup& group) {
    std::vector<RefPtr<ShmSegment>> doomed;
    MutexLock lock(segments_mu);
    for (const auto& segment : segments_.slots()) {
        if (segment && segment->creator_group == &group) {
            segment->creator_group = nullptr;  // its address may be another's soon
            if (limits_.remove_forced && segment->attached == 0) {
                doomed.push_back(segment);
            }
        }
    }
    for (const auto& segment : doomed) {
        destroy_locked(*segment);
    }
    lock.unlock();
}

// ---------------------------------------------------------------- attachments

ShmAttachments::~ShmAttachments() { clear(last_); }

void ShmAttachments::add(uint64_t start, uint64_t size, uint64_t offset, RefPtr<ShmSegment> segment,
                         const IpcActor& who) {
    {
        MutexLock lock(mu_);
        pieces_[start] = Piece{size, offset, segment};
        any_.store(true, std::memory_order_relaxed);
        last_ = who;
    }
    segment->note_mapped(who);
}

void ShmAttachments::copy_from(const ShmAttachments& other, const IpcActor& who) {
    std::map<uint64_t, Piece> pieces;
    {
        MutexLock lock(other.mu_);
        pieces = other.pieces_;
    }
    for (const auto& [start, piece] : pieces) {
        piece.segment->attach(who);
    }
    MutexLock lock(mu_);
    any_.store(!pieces.empty(), std::memory_order_relaxed);
    pieces_ = std::move(pieces);
    last_ = who;
}

// Cuts pieces at both ends of the range and takes out what lies in it.
std::map<uint64_t, ShmAttachments::Piece> ShmAttachments::take_range(uint64_t start, uint64_t size,
                                                                     const IpcActor& who) {
    std::map<uint64_t, Piece> taken;
    const uint64_t end = start + size;
    std::vector<RefPtr<ShmSegment>> split;  // one attachment more each
    {
        MutexLock lock(mu_);
        for (auto it = pieces_.begin(); it != pieces_.end() && it->first < end;) {
            const uint64_t piece_start = it->first;
            const Piece piece = it->second;
            const uint64_t piece_end = piece_start + piece.size;
            if (piece_end <= start) {
                ++it;
                continue;
            }
            it = pieces_.erase(it);
            const uint64_t from = std::max(piece_start, start), to = std::min(piece_end, end);
            taken[from] = {to - from, piece.offset + (from - piece_start), piece.segment};
            if (piece_start < from) {
                pieces_[piece_start] = {from - piece_start, piece.offset, piece.segment};
                split.push_back(piece.segment);
            }
            if (to < piece_end) {
                pieces_[to] = {piece_end - to, piece.offset + (to - piece_start), piece.segment};
                split.push_back(piece.segment);
                break;
            }
        }
        any_.store(!pieces_.empty(), std::memory_order_relaxed);
    }
    for (const auto& segment : split) {
        segment->attach(who);
    }
    return taken;
}

void ShmAttachments::forget(uint64_t start, uint64_t size, const IpcActor& who) {
    if (!any()) {
        return;
    }
    for (const auto& [at, piece] : take_range(start, size, who)) {
        piece.segment->detach(who);
    }
}

void ShmAttachments::clear(const IpcActor& who) {
    std::map<uint64_t, Piece> pieces;
    {
        MutexLock lock(mu_);
        pieces.swap(pieces_);
        any_.store(false, std::memory_order_relaxed);
    }
    for (const auto& [at, piece] : pieces) {
        piece.segment->detach(who);
    }
}

bool ShmAttachments::overlaps(uint64_t start, uint64_t size) const {
    if (!any()) {
        return false;
    }
    MutexLock lock(mu_);
    for (const auto& [at, piece] : pieces_) {
        if (at < start + size && start < at + piece.size) {
            return true;
        }
    }
    return false;
}

void ShmAttachments::moved(uint64_t old_start, uint64_t old_size, uint64_t new_start,
                           uint64_t new_size, const IpcActor& who) {
    const std::map<uint64_t, Piece> taken = take_range(old_start, old_size, who);
    uint64_t cut = 0;
    {
        MutexLock lock(mu_);
        for (const auto& [at, piece] : taken) {
            const uint64_t inside = at - old_start;
            if (inside >= new_size) {
                cut++;
                continue;
            }
            Piece now = piece;
            const bool is_last = inside + piece.size == old_size;
            now.size = is_last ? new_size - inside : std::min(piece.size, new_size - inside);
            pieces_[new_start + inside] = now;
        }
        any_.store(!pieces_.empty(), std::memory_order_relaxed);
    }
    if (cut != 0) {
        for (const auto& [at, piece] : taken) {
            if (at - old_start >= new_size) {
                piece.segment->detach(who);
            }
        }
    }
}

void ShmAttachments::copied(uint64_t old_start, uint64_t new_start, uint64_t new_size,
                            const IpcActor& who) {
    RefPtr<ShmSegment> segment;
    {
        MutexLock lock(mu_);
        auto it = pieces_.upper_bound(old_start);
        if (it == pieces_.begin() || (--it)->first + it->second.size <= old_start) {
            return;
        }
        segment = it->second.segment;
        pieces_[new_start] = {new_size, it->second.offset + (old_start - it->first), segment};
    }
    segment->attach(who);
}

std::vector<std::pair<uint64_t, uint64_t>> ShmAttachments::attached_at(uint64_t address) const {
    std::vector<std::pair<uint64_t, uint64_t>> found;
    MutexLock lock(mu_);
    // Linux: ksys_shmdt(): the first piece from there on whose offset says that it belongs there,
    // and the rest of the same segment within its size.
    RefPtr<ShmSegment> segment;
    for (auto it = pieces_.lower_bound(address); it != pieces_.end(); ++it) {
        const auto& [start, piece] = *it;
        if (segment && start - address >= page_up(segment->size)) {
            break;
        }
        if (start - address == piece.offset && (!segment || piece.segment == segment)) {
            segment = piece.segment;
            found.emplace_back(start, piece.size);
        }
    }
    return found;
}

}  // namespace moat::kernel
