#pragma once

#include <linux/filter.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstdint>
#include <vector>

namespace moat::platform {

/// Direct calls: those that the host may answer without the sentry. In groups, as bits, that a
/// sentry which has to see each can end.
enum DirectCalls : uint8_t {
    kNoDirectCalls = 0,
    /// On the caller's own address space: the sentry would only have checked that they stay clear
    /// of the stub, which the filter can do as well.
    kMemoryCalls = 1,
    /// Of futex(2), what concerns threads of one process only and knows no owners.
    kFutexCalls = 2,
    kAllDirectCalls = 3,
};
inline constexpr uint32_t kMemoryCallNumbers[] = {SYS_mmap,   SYS_munmap,  SYS_mprotect,
                                                  SYS_mremap, SYS_madvise, SYS_brk};
/// The operations, without FUTEX_CLOCK_REALTIME.
inline constexpr uint32_t kDirectFutexOperations[] = {
    FUTEX_WAIT_PRIVATE,        FUTEX_WAKE_PRIVATE,    FUTEX_REQUEUE_PRIVATE,
    FUTEX_CMP_REQUEUE_PRIVATE, FUTEX_WAKE_OP_PRIVATE, FUTEX_WAIT_BITSET_PRIVATE,
    FUTEX_WAKE_BITSET_PRIVATE};

/// Of madvise(2), as bits: what changes the caller's own pages only. The rest (HWPOISON, REMOVE,
/// MERGEABLE, ...) has effects beyond them, or reads the stub's.
inline constexpr uint32_t kHarmlessAdvice = [] {
    uint32_t bits = 0;
    for (const int advice :
         {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED, MADV_FREE,
          MADV_DONTFORK, MADV_DOFORK, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP,
          MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ,
          MADV_POPULATE_WRITE}) {
        bits |= uint32_t{1} << advice;
    }
    return bits;
}();

/// Whether the host can be told where a process' heap begins (PR_SET_MM_MAP, prctl(2); Linux built
/// with CONFIG_CHECKPOINT_RESTORE), so that brk(2) may be direct.
bool host_keeps_heap();

/// The seccomp filter of every guest thread; see filter.cc for each rule's reason. `direct_brk`:
/// the host keeps the heaps of all guest processes.
std::vector<sock_filter> build_guest_filter(bool direct_brk);
/// A filter on top of it that brings one group of direct calls into the stub.
std::vector<sock_filter> build_ending_filter(DirectCalls group);

}  // namespace moat::platform
