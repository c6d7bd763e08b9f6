// Address space calls. The host's VMAs are the truth: calls whose arguments are numbers are checked
// against the stub's area and then executed by the host kernel itself, most of them directly
// (kernel/platform/filter.h) and only the rest through here; those that name a file, and growth of
// the heap, are made as orders.

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <iterator>

#include "kernel/fs/dentry.h"
#include "kernel/fs/dev/devices.h"
#include "kernel/fs/mount.h"
#include "kernel/ipc/shm.h"
#include "kernel/mm/address_space.h"
#include "kernel/platform/filter.h"
#include "kernel/syscalls/handlers.h"
#include "kernel/syscalls/syscall.h"

namespace moat::kernel {

namespace {

constexpr int kTypeMask = MAP_TYPE;  // MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE
constexpr uint64_t kUserEnd = 0x7ffffffff000;
/// The heap grows by at least this much at once, so that most brk calls only move a number.
constexpr uint64_t kBrkStep = 256 << 10;
constexpr uint64_t kLargestBrk = uint64_t{1} << 40;

/// `lent`: a descriptor of ours that the order finds at MOAT_LEND_FD, or none.
int64_t run_one(Task& task, const platform::Order& order, int lent = -1) {
    const std::span orders(&order, 1);
    const auto result =
        lent >= 0 ? task.thread().run_orders_with(lent, orders) : task.thread().run_orders(orders);
    task.moved_on();
    return result.ok() ? *result : -ESRCH;
}

Result<ScopedFd> reopen_read_only(int fd) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ScopedFd again(::open(path, O_RDONLY | O_CLOEXEC));
    if (!again) {
        return Errno(errno);
    }
    return again;
}

/// RLIMIT_AS: ENOMEM when `more` bytes would be too many. The host is asked only where there is a
/// limit; nothing is reserved, so threads that map at once may together go beyond it by what they
/// map.
Status check_address_space(Task& task, uint64_t more) {
    const uint64_t limit = task.rlimit(RLIMIT_AS);
    if (limit == RLIM_INFINITY) {
        return {};
    }
    const uint64_t used = task.mm().usage().virtual_bytes;
    return used > limit || more > limit - used ? Status(Errno(ENOMEM)) : Status();
}

Result<int64_t> to_result(int64_t value) {
    if (value < 0 && value >= -4095) {
        return Errno(static_cast<int>(-value));
    }
    return value;
}

}  // namespace

Result<int64_t> sys_mmap(Task& task, uint64_t address, uint64_t size, int protection, int flags,
                         Fd fd, uint64_t offset) {
    if (size == 0 || (offset & (kPageSize - 1)) != 0) {
        return Errno(EINVAL);
    }
    const bool fixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0;
    if (fixed) {
        if (!is_clear_of_stub(address, size)) {
            return Errno((flags & MAP_FIXED_NOREPLACE) != 0 ? EEXIST : ENOMEM);
        }
    } else if (!is_clear_of_stub(address, size)) {
        return Errno(ENOMEM);  // a hint into our area: the host would only skip what is mapped
    }
    if ((flags & MAP_HUGETLB) != 0) {
        return unsupported("mmap MAP_HUGETLB", ENOMEM);
    }
    if ((flags & MAP_GROWSDOWN) != 0) {
        return unsupported("mmap MAP_GROWSDOWN", EOPNOTSUPP);
    }
    TRY(check_address_space(task, page_up(size)));
    const int type = flags & kTypeMask;
    if (type != MAP_SHARED && type != MAP_PRIVATE && type != MAP_SHARED_VALIDATE) {
        return Errno(EINVAL);
    }
    if ((flags & MAP_FIXED) != 0) {
        // What may fail below fails before it unmaps anything, as a rule; nattch is told to nobody
        // who relies on it to the instant.
        task.mm().segments().forget(page_down(address), page_up(size), IpcActor::of(task));
    }
    if ((flags & MAP_ANONYMOUS) != 0) {
        if ((flags & MAP_LOCKED) == 0 && static_cast<int32_t>(to_integer(fd)) == -1) {
            return kContinueOnHost;
        }
        // The same without what the host must not see.
        if (!task.in_stub()) {
            return kNeedStub;
        }
        return to_result(
            run_one(task, {SYS_mmap,
                           {address, size, static_cast<uint64_t>(protection),
                            static_cast<uint64_t>(flags & ~MAP_LOCKED), ~uint64_t{0}, 0}}));
    }

    const RefPtr<File> file = TRY(task.fds().get(fd));
    const bool shared = type != MAP_PRIVATE;
    if (!file->readable()) {
        return Errno(EACCES);
    }
    if (shared && (protection & PROT_WRITE) != 0 && !file->writable()) {
        return Errno(EACCES);
    }
    if ((protection & PROT_EXEC) != 0 && file->path().mount() != nullptr &&
        file->path().mount()->no_exec()) {
        return Errno(EPERM);
    }
    const bool anonymous = is_zero_device(*file);
    const MapSource source = anonymous ? MapSource{.may_write_shared = true}
                                       : TRY(file->map_source(task, protection, shared));
    if (shared && (protection & PROT_WRITE) != 0 && !source.may_write_shared) {
        return Errno(EACCES);
    }
    if (!task.in_stub()) {
        return kNeedStub;
    }
    int host_flags = flags & ~MAP_LOCKED;
    int lent = -1;
    ScopedFd read_only;
    platform::Order order{
        SYS_mmap,
        {address, size, static_cast<uint64_t>(protection), 0, static_cast<uint64_t>(MOAT_LEND_FD),
         offset + static_cast<uint64_t>(source.offset_shift)}};
    if (anonymous) {
        host_flags |= MAP_ANONYMOUS;
        order.arguments[4] = ~uint64_t{0};
        order.arguments[5] = 0;
    } else {
        lent = source.host_fd;
        if (shared && !file->writable() && (::fcntl(lent, F_GETFL) & O_ACCMODE) != O_RDONLY) {
            // What lends its pages can be written, this description cannot: without the right in
            // the host's descriptor no later mprotect() gets it back.
            read_only = TRY(reopen_read_only(source.host_fd));
            lent = read_only.get();
        }
    }
    order.arguments[3] = static_cast<uint64_t>(host_flags);
    // The lent number is overwritten by the next mapping's, or closed by execve with the process.
    const auto mapped = to_result(run_one(task, order, lent));
    if (mapped.ok() && !anonymous) {
        task.mm().note_mapped_file(source.host_fd, file);
    }
    return mapped;
}

Result<int64_t> sys_munmap(Task& task, uint64_t address, uint64_t size) {
    if (!is_clear_of_stub(address, size)) {
        return Errno(EINVAL);
    }
    if (address == page_down(address)) {
        task.mm().segments().forget(address, page_up(size), IpcActor::of(task));
    }
    return kContinueOnHost;
}

Result<int64_t> sys_mprotect(Task&, uint64_t address, uint64_t size, int) {
    if (!is_clear_of_stub(address, size)) {
        return Errno(ENOMEM);
    }
    return kContinueOnHost;
}

Result<int64_t> sys_mremap(Task& task, uint64_t old_address, uint64_t old_size, uint64_t new_size,
                           uint64_t flags, uint64_t new_address) {
    if (!is_clear_of_stub(old_address, old_size) || !is_clear_of_stub(old_address, new_size)) {
        return Errno(EFAULT);
    }
    if ((flags & MREMAP_FIXED) != 0 && !is_clear_of_stub(new_address, new_size)) {
        return Errno(EINVAL);
    }
    if (new_size > old_size) {
        TRY(check_address_space(task, page_up(new_size) - page_up(old_size)));
    }
    ShmAttachments& segments = task.mm().segments();
    const uint64_t looked_at = std::max<uint64_t>(page_up(old_size), kPageSize);
    const bool of_segment = segments.overlaps(old_address, looked_at);
    if (!of_segment && (flags & MREMAP_FIXED) == 0) {
        return kContinueOnHost;
    }
    if (!of_segment && !segments.overlaps(new_address, page_up(new_size))) {
        return kContinueOnHost;
    }
    if (!task.in_stub()) {
        return kNeedStub;
    }
    const auto moved = to_result(
        run_one(task, {SYS_mremap, {old_address, old_size, new_size, flags, new_address}}));
    if (moved.ok()) {
        const IpcActor who = IpcActor::of(task);
        const auto to = static_cast<uint64_t>(*moved);
        if ((flags & MREMAP_FIXED) != 0) {
            segments.forget(to, page_up(new_size), who);
        }
        if (old_size == 0 || (flags & MREMAP_DONTUNMAP) != 0) {
            segments.copied(old_address, to, page_up(new_size), who);
        } else if (of_segment) {
            segments.moved(old_address, page_up(old_size), to, page_up(new_size), who);
        }
    }
    return moved;
}

Result<int64_t> sys_madvise(Task&, uint64_t address, uint64_t size, int advice) {
    const bool harmless =
        advice >= 0 && advice < 32 && (platform::kHarmlessAdvice >> advice & 1) != 0;
    if (!harmless) {
        return advice == MADV_REMOVE ? unsupported("madvise MADV_REMOVE", EINVAL) : Errno(EINVAL);
    }
    if (!is_clear_of_stub(address, size)) {
        return Errno(ENOMEM);
    }
    return kContinueOnHost;
}

Result<int64_t> sys_msync(Task&, uint64_t address, uint64_t size, int) {
    if (!is_clear_of_stub(address, size)) {
        return Errno(ENOMEM);
    }
    return kContinueOnHost;
}

Result<int64_t> sys_mincore(Task& task, uint64_t address, uint64_t size, UserPtr<uint8_t> vector) {
    if ((address & (kPageSize - 1)) != 0) {
        return Errno(EINVAL);
    }
    if (!is_clear_of_stub(address, size)) {
        return Errno(ENOMEM);
    }
    // The host would write through a pointer; what is mapped is resident as far as guests can tell.
    const uint64_t pages = page_up(size) / kPageSize;
    const std::vector<uint8_t> resident(std::min<uint64_t>(pages, 4096), 1);
    for (uint64_t done = 0; done < pages; done += resident.size()) {
        const size_t n = std::min<uint64_t>(resident.size(), pages - done);
        TRY(task.copy_out_bytes(vector.address() + done, resident.data(), n));
    }
    return 0;
}

// Guests' memory is not locked: the node's memory is the host's to manage.
Status sys_mlock(Task&, uint64_t address, uint64_t size) {
    uint64_t end = 0;
    return __builtin_add_overflow(address, size, &end) || end > kUserEnd ? Status(Errno(ENOMEM))
                                                                         : Status();
}
Status sys_mlock2(Task& task, uint64_t address, uint64_t size, uint32_t flags) {
    return (flags & ~1u) != 0 ? Status(Errno(EINVAL)) : sys_mlock(task, address, size);
}
Status sys_munlock(Task&, uint64_t, uint64_t) { return {}; }
Status sys_mlockall(Task&, int) { return {}; }
Status sys_munlockall(Task&) { return {}; }

namespace {

/// Where the host keeps the heap and direct calls have ended.
int64_t brk_by_host(Task& task, uint64_t start, uint64_t wanted) {
    const auto current = static_cast<uint64_t>(run_one(task, {SYS_brk, {0}}));
    const bool too_much =
        wanted > current && (wanted - start > task.rlimit(RLIMIT_DATA) ||
                             !check_address_space(task, page_up(wanted) - page_up(current)).ok());
    if (wanted < start || wanted >= kUserEnd || too_much) {
        return static_cast<int64_t>(current);
    }
    return run_one(task, {SYS_brk, {wanted}});
}

}  // namespace

Result<int64_t> sys_brk(Task& task, uint64_t wanted) {
    uint64_t start, current, mapped_end;
    task.mm().brk_state(start, current, mapped_end);
    if (platform::host_keeps_heap()) {
        return task.in_stub() ? Result<int64_t>(brk_by_host(task, start, wanted))
                              : Result<int64_t>(kNeedStub);
    }
    if (wanted < start || wanted - start > kLargestBrk || wanted >= kUserEnd) {
        return static_cast<int64_t>(current);
    }
    if (wanted - start > task.rlimit(RLIMIT_DATA)) {
        return static_cast<int64_t>(current);
    }
    const uint64_t needed = page_up(wanted);
    if (wanted >= current && needed <= mapped_end) {
        task.mm().set_brk(wanted, mapped_end);
        return static_cast<int64_t>(wanted);
    }
    if (needed > mapped_end && !check_address_space(task, needed - mapped_end).ok()) {
        return static_cast<int64_t>(current);
    }
    if (!task.in_stub()) {
        return kNeedStub;
    }
    if (needed > mapped_end) {
        const uint64_t end = std::max(needed, mapped_end + kBrkStep);
        for (const uint64_t target : {end, needed}) {
            const int64_t result = run_one(
                task, {SYS_mmap,
                       {mapped_end, target - mapped_end, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, ~uint64_t{0}, 0}});
            if (result == static_cast<int64_t>(mapped_end)) {
                task.mm().set_brk(wanted, target);
                return static_cast<int64_t>(wanted);
            }
        }
        return static_cast<int64_t>(current);
    }
    // Shrinking gives the pages back: they must read as zero when the heap grows again.
    if (needed < mapped_end) {
        run_one(task, {SYS_munmap, {needed, mapped_end - needed}});
    }
    task.mm().set_brk(wanted, needed);
    return static_cast<int64_t>(wanted);
}

Status sys_membarrier(Task&, int command, uint32_t, int) {
    // No command is offered, as with nohz_full: liburcu and others fall back to plain barriers.
    return command == MEMBARRIER_CMD_QUERY ? Status() : Status(Errno(EINVAL));
}

}  // namespace moat::kernel
