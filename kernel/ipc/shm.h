#pragma once

// System V shared memory (shmget(2)). A segment is a memfd of the host, as other shared memory of
// guests is: pages are charged to the cgroup of whoever touches them first.

#include <sys/shm.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernel/base/mutex.h"
#include "kernel/base/scoped_fd.h"
#include "kernel/ipc/ipc_object.h"

namespace moat::kernel {

class ShmTable;
class Task;

class ShmSegment final : public IpcObject {
  public:
    /// Immutable.
    uint64_t size = 0;
    IpcActor creator;
    const ThreadGroup* creator_group = nullptr;  ///< compared, never followed

    // Guarded by the segments' lock.
    ShmTable* table = nullptr;  ///< null: removed, or its namespace is gone
    ScopedFd memfd;             ///< made when first attached
    uint64_t attached = 0;
    int64_t attached_at = 0, detached_at = 0, changed_at = 0;
    IpcActor last;

    ~ShmSegment() override;

    /// One mapping more, or fewer: nattch. The last to leave a segment marked for removal ends it.
    void attach(const IpcActor& who);
    /// What begin_attach() has counted is there.
    void note_mapped(const IpcActor& who);
    void detach(const IpcActor& who);
};

/// The segments of an IPC namespace.
class ShmTable {
  public:
    struct Limits {
        uint64_t bytes = UINT64_MAX - (1 << 24);  ///< of one segment: kernel.shmmax
        uint64_t pages = UINT64_MAX - (1 << 24);  ///< of all: kernel.shmall
        uint64_t segments = 4096;                 ///< kernel.shmmni
        bool remove_forced = false;               ///< kernel.shm_rmid_forced
    };
    /// Segments of the sandbox that may have a descriptor of the host at once.
    static constexpr uint32_t kMostDescriptors = 4096;

    explicit ShmTable(const Limits& limits) : limits_(limits) {}
    ~ShmTable();

    Result<int32_t> get(Task& task, int32_t key, size_t size, uint32_t flags);
    /// A segment about to be mapped by `task`, counted as attached already: the caller gives that
    /// back by detach() if it comes to nothing. `wanted` as for IpcPermissions::check(). EINVAL,
    /// EACCES, ENOMEM.
    Result<RefPtr<ShmSegment>> begin_attach(Task& task, int32_t id, uint32_t wanted);

    struct Status64 {
        shmid_ds ds;
        int32_t id;
    };
    enum class By : uint8_t { kId, kIndex, kIndexAny };
    Result<Status64> stat(Task& task, int32_t number, By by);
    Status set(Task& task, int32_t id, const shmid_ds& wanted);
    Status remove(Task& task, int32_t id);
    /// SHM_LOCK and SHM_UNLOCK: the permission to; guests' memory is not locked.
    Status lock(Task& task, int32_t id, bool locked);
    /// IPC_INFO and SHM_INFO; `highest` is the call's result.
    struct Info {
        int32_t highest;
        uint64_t segments, pages, resident_pages;
    };
    Info info();
    const Limits& limits() const { return limits_; }
    /// /proc/sysvipc/shm.
    std::string text(const Task& reader);
    void process_exited(const ThreadGroup& group);

  private:
    friend class ShmSegment;
    Result<int32_t> create_locked(Task& task, int32_t key, size_t size, uint32_t flags);
    void destroy_locked(ShmSegment& segment);

    // Under the segments' lock, which is one for the sandbox: a segment outlives its namespace
    // while it is attached.
    IpcTable<ShmSegment> segments_;
    uint64_t pages_ = 0;
    const Limits limits_;
};

/// Where an address space has segments mapped. Owned by it.
class ShmAttachments {
  public:
    ~ShmAttachments();
    bool any() const { return any_.load(std::memory_order_relaxed); }
    /// Takes over what ShmTable::begin_attach() has counted.
    void add(uint64_t start, uint64_t size, uint64_t offset, RefPtr<ShmSegment> segment,
             const IpcActor& who);
    /// fork(2).
    void copy_from(const ShmAttachments& other, const IpcActor& who);
    /// The range was unmapped, or something else was mapped over it.
    void forget(uint64_t start, uint64_t size, const IpcActor& who);
    void clear(const IpcActor& who);
    bool overlaps(uint64_t start, uint64_t size) const;
    /// mremap(2) has put [old_start, old_start + old_size) where [new_start, ...) is now.
    void moved(uint64_t old_start, uint64_t old_size, uint64_t new_start, uint64_t new_size,
               const IpcActor& who);
    /// mremap(2) has mapped it there as well.
    void copied(uint64_t old_start, uint64_t new_start, uint64_t new_size, const IpcActor& who);
    /// What shmdt(2) of `address` unmaps, in pieces that are left of the attachment: start and
    /// size.
    std::vector<std::pair<uint64_t, uint64_t>> attached_at(uint64_t address) const;

  private:
    struct Piece {
        uint64_t size;
        uint64_t offset;
        RefPtr<ShmSegment> segment;
    };
    std::map<uint64_t, Piece> take_range(uint64_t start, uint64_t size, const IpcActor& who);

    mutable Mutex<LockRank::kAddressSpace> mu_;
    std::map<uint64_t, Piece> pieces_ GUARDED_BY(mu_);  // by start
    std::atomic<bool> any_{false};                      // a hint; changed with the lock
    IpcActor last_ GUARDED_BY(mu_);  // who is told of an end that nobody announced
};

}  // namespace moat::kernel
