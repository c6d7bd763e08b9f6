// System V shared memory. The rules are kernel/ipc/shm.h's; here segments get into address spaces.

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "kernel/base/cleanup.h"
#include "kernel/ipc/ipc_namespace.h"
#include "kernel/mm/address_space.h"
#include "kernel/syscalls/handlers_ipc.h"
#include "kernel/syscalls/syscall.h"
#include "kernel/task/container.h"
#include "kernel/task/direct_calls.h"
#include "kernel/task/task.h"

namespace moat::kernel {

namespace {

constexpr int kStatAny = 15;  // SHM_STAT_ANY

ShmTable& table_of(const Task& task) { return task.container().ipc().shm(); }

/// `lent`: a descriptor of ours that the order finds at MOAT_LEND_FD, or none.
Result<int64_t> run_one(Task& task, const platform::Order& order, int lent = -1) {
    const std::span orders(&order, 1);
    const auto result =
        lent >= 0 ? task.thread().run_orders_with(lent, orders) : task.thread().run_orders(orders);
    task.moved_on();
    if (!result.ok()) {
        return result.error();
    }
    if (*result < 0 && *result >= -4095) {
        return Errno(static_cast<int>(-*result));
    }
    return *result;
}

/// What /proc/PID/maps shows of a segment.
class SegmentName final : public File {
  public:
    explicit SegmentName(int32_t key) : File(O_RDWR) {
        char text[32];
        snprintf(text, sizeof text, "/SYSV%08x (deleted)", static_cast<uint32_t>(key));
        name_ = text;
    }
    std::string anonymous_name() const override { return name_; }

  private:
    std::string name_;
};

}  // namespace

Result<int32_t> sys_shmget(Task& task, int32_t key, size_t size, uint32_t flags) {
    return table_of(task).get(task, key, size, flags);
}

Result<int64_t> sys_shmat(Task& task, int32_t id, uint64_t address, uint32_t flags) {
    if (id < 0) {
        return Errno(EINVAL);
    }
    const bool remap = (flags & SHM_REMAP) != 0;
    if (address == 0 && remap) {
        return Errno(EINVAL);
    }
    if ((address & (kPageSize - 1)) != 0) {
        if ((flags & SHM_RND) == 0) {
            return Errno(EINVAL);
        }
        address = page_down(address);
        if (address == 0 && remap) {
            return Errno(EINVAL);
        }
    }
    const bool read_only = (flags & SHM_RDONLY) != 0;
    const bool executable = (flags & SHM_EXEC) != 0;
    if (!task.in_stub()) {
        return kNeedStub;
    }
    const IpcActor who = IpcActor::of(task);
    const RefPtr<ShmSegment> segment = TRY(table_of(task).begin_attach(
        task, id, (read_only ? 0444u : 0666u) | (executable ? 0111u : 0u)));
    auto undo = Cleanup([&] { segment->detach(who); });
    const uint64_t size = page_up(segment->size);
    if (address != 0 && !is_clear_of_stub(address, size)) {
        return Errno(EINVAL);
    }

    // The descriptor that is lent decides what mprotect() can make of the mapping later.
    ScopedFd lent;
    if (read_only) {
        char path[40];
        snprintf(path, sizeof path, "/proc/self/fd/%d", segment->memfd.get());
        lent = ScopedFd(::open(path, O_RDONLY | O_CLOEXEC));
        if (!lent) {
            return Errno(errno);
        }
    }
    const int host_fd = read_only ? lent.get() : segment->memfd.get();
    const int protection = PROT_READ | (read_only ? 0 : PROT_WRITE) | (executable ? PROT_EXEC : 0);
    const int host_flags = MAP_SHARED | (address == 0 ? 0
                                         : remap      ? MAP_FIXED
                                                      : MAP_FIXED_NOREPLACE);
    const platform::Order order{
        SYS_mmap,
        {address, size, static_cast<uint64_t>(protection), static_cast<uint64_t>(host_flags),
         static_cast<uint64_t>(MOAT_LEND_FD), 0}};
    end_direct_calls(task.mm(), platform::kMemoryCalls);  // what unmaps a segment is to be seen
    const auto mapped = run_one(task, order, host_fd);
    if (!mapped.ok()) {
        return mapped.error() == EEXIST ? Errno(EINVAL) : mapped.error();
    }
    undo.release();
    const auto at = static_cast<uint64_t>(*mapped);
    ShmAttachments& segments = task.mm().segments();
    if (remap) {
        segments.forget(at, size, who);
    }
    segments.add(at, size, 0, segment, who);
    task.mm().note_mapped_file(segment->memfd.get(),
                               make_ref<SegmentName>(segment->permissions.key));
    return *mapped;
}

Result<int64_t> sys_shmdt(Task& task, uint64_t address) {
    if (address != page_down(address)) {
        return Errno(EINVAL);
    }
    ShmAttachments& segments = task.mm().segments();
    const auto pieces = segments.attached_at(address);
    if (pieces.empty()) {
        return Errno(EINVAL);
    }
    if (!task.in_stub()) {
        return kNeedStub;
    }
    for (const auto& [start, size] : pieces) {
        TRY(run_one(task, {SYS_munmap, {start, size}}));
        segments.forget(start, size, IpcActor::of(task));
    }
    return 0;
}

Result<int64_t> sys_shmctl(Task& task, int32_t id, int command, GuestAddr buffer) {
    if (id < 0 || command < 0) {
        return Errno(EINVAL);
    }
    ShmTable& table = table_of(task);
    switch (command) {
        case IPC_INFO: {
            const auto& limits = table.limits();
            struct shminfo info {};
            info.shmmax = limits.bytes;
            info.shmmin = 1;
            info.shmmni = limits.segments;
            info.shmseg = limits.segments;
            info.shmall = limits.pages;
            TRY(task.copy_out(UserPtr<struct shminfo>(buffer), info));
            return table.info().highest;
        }
        case SHM_INFO: {
            const auto now = table.info();
            struct shm_info info {};
            info.used_ids = static_cast<int>(now.segments);
            info.shm_tot = now.pages;
            info.shm_rss = now.resident_pages;
            TRY(task.copy_out(UserPtr<struct shm_info>(buffer), info));
            return now.highest;
        }
        case IPC_STAT:
        case SHM_STAT:
        case kStatAny: {
            const auto by = command == IPC_STAT   ? ShmTable::By::kId
                            : command == SHM_STAT ? ShmTable::By::kIndex
                                                  : ShmTable::By::kIndexAny;
            const auto status = TRY(table.stat(task, id, by));
            TRY(task.copy_out(UserPtr<shmid_ds>(buffer), status.ds));
            return command == IPC_STAT ? 0 : status.id;
        }
        case IPC_SET: {
            const shmid_ds wanted = TRY(task.copy_in(UserPtr<const shmid_ds>(buffer)));
            TRY(table.set(task, id, wanted));
            return 0;
        }
        case IPC_RMID:
            TRY(table.remove(task, id));
            return 0;
        case SHM_LOCK:
        case SHM_UNLOCK:
            TRY(table.lock(task, id, command == SHM_LOCK));
            return 0;
        default:
            return Errno(EINVAL);
    }
}

}  // namespace moat::kernel
