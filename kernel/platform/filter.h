#pragma once

#include <linux/filter.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstdint>
#include <vector>

namespace moat::platform {

/// Calls on the caller's own address space that the host may answer without the sentry: it would
/// only have checked that they stay clear of the stub, which the filter can do as well.
inline constexpr uint32_t kDirectCalls[] = {SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap,
                                            SYS_madvise};

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

/// The seccomp filter of every guest thread; see filter.cc for each rule's reason.
std::vector<sock_filter> build_guest_filter();
/// A filter on top of it that brings the direct calls into the stub, for threads whose sentry has
/// to see each.
std::vector<sock_filter> build_no_direct_filter();

}  // namespace moat::platform
